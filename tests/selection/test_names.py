"""Samplers by name, and the report of participation."""

import math

import numpy as np
import pytest

from fljax.core.spread import spread
from fljax.selection import names
from fljax.selection.participation import participation_report

KNOWN = {
    "labels": np.eye(6, dtype=int) + 1,
    "durations": np.arange(1.0, 7.0),
    "compute_seconds": np.ones(6),
    "upload_seconds": np.ones(6),
}
TEXTS = {"rpow_d": "rpow_d(4)", "fedcs": "fedcs(100.0)", "grown": "grown(0.5, over=4)"}


@pytest.mark.parametrize("name", names.SAMPLERS)
def test_every_sampler_is_made_by_name_and_depends_on_seed_and_round(name):
    text = TEXTS.get(name, name)
    names.check_name(text)
    first, again, other = (
        names.make(text, 6, 3, seed, np.full(6, 5), **KNOWN) for seed in (5, 5, 6)
    )

    def cohorts(sampler):
        found = []
        for round in range(12):
            selected, _ = sampler.select(sampler.init(), round)
            found.append(np.asarray(selected.clients if sampler.has_scale else selected).tolist())
        return found

    assert cohorts(first) == cohorts(again) != cohorts(other)
    assert all(len(cohort) <= first.max_cohort for cohort in cohorts(first))
    assert len({tuple(cohort) for cohort in cohorts(first)}) > 2
    distinct = all(len(set(cohort)) == len(cohort) for cohort in cohorts(first))
    assert distinct or first.separation == 0


def test_what_a_run_does_not_know_is_said():
    for text, missing, source in (
        ("oort", "durations", "devices"),
        ("fedcs(10.0)", "compute_seconds", "devices"),
        ("divfl", "labels", "label counts"),
    ):
        with pytest.raises(ValueError, match=f"needs {missing}, which come from .*{source}"):
            names.make(text, 6, 3, 0, np.full(6, 5))
    with pytest.raises(ValueError, match="there are no labels"):
        names.make("clustered(by='labels')", 6, 3, 0, np.full(6, 5))
    with pytest.raises(ValueError, match="durations = 3 is set here"):
        names.check_name("oort(durations=3)")
    with pytest.raises(ValueError, match="oort has no argument"):
        names.check_name("oort(alpha=2)")


def test_participation_by_group():
    counts = np.array([4, 0, 2, 2, 0, 0, 1, 1])
    report = participation_report(counts, {"tier": list("aaabbbcc"), "sex": np.arange(8) % 2})
    whole = report["all"]["all"]
    assert (whole.clients, whole.turns, whole.coverage, whole.share) == (8, 10, 5 / 8, 1)
    differences = np.abs(counts[:, None] - counts).mean()
    assert whole.gini == pytest.approx(differences / (2 * counts.mean()))
    assert whole.jain == pytest.approx(10**2 / (8 * np.square(counts).sum()))
    assert list(report["tier"]) == ["a", "b", "c"] and list(report["sex"]) == [0, 1]
    tier = report["tier"]["b"]
    assert (tier.clients, tier.turns, tier.coverage) == (3, 2, 1 / 3)
    assert tier.share == pytest.approx(0.2) and tier.parity == pytest.approx(0.2 / (3 / 8))
    assert tier.gini == spread(counts[3:6])["gini"]
    assert sum(group.share for group in report["tier"].values()) == pytest.approx(1)


def test_participation_of_nobody():
    idle = participation_report(np.zeros(3, int), {"tier": ["a", "a", "b"]})
    assert idle["all"]["all"].coverage == 0 and math.isnan(idle["all"]["all"].gini)
    assert math.isnan(idle["tier"]["b"].parity)
    assert math.isnan(participation_report(np.zeros(0, int))["all"]["all"].coverage)
    with pytest.raises(ValueError, match="counts = -1"):
        participation_report(np.array([1, -1]))
    with pytest.raises(ValueError, match=r"groups\['tier'\] has shape \[2\]"):
        participation_report(np.ones(3, int), {"tier": ["a", "b"]})
