"""Studies as users run them: variants over seeds, gone on with, added to, and reported."""

import base64
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from small_sweeps import alone, small_config

import fljax
from fljax.config import ConfigError
from fljax.studies import Study, load_study, load_study_run, parse_axes, parse_variants, report
from fljax.studies.columns import table
from fljax.studies.study import listed_trials
from fljax.studies.study_report import command_of

ROOT = Path(__file__).parents[2]
SPARSE = {"uplink": "top_k(0.1)", "uplink_memory": "error_feedback"}
VARIANTS = {"none": {}, "top_k(0.1) + error_feedback": SPARSE}
COEFFICIENTS = 64 * 10 + 10
COLUMNS = ("client_uplink_bytes", "uplink_factor", "best", "gap")
SETTINGS = {"reference": "none", "columns": COLUMNS, "progress": False, "resume": True}

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


def config_of(**values):
    config = small_config(**{"num_rounds": 4, "eval_clients": -1} | values)
    config.data_seed = config.get_ref("seed")
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished study, and what its command prints."""
    workdir = tmp_path_factory.mktemp("study")
    found = fljax.sweep(config_of(), workdir, variants=VARIANTS, seeds=(0, 1), **SETTINGS)
    return found, report(found, ["python", "again", "a b"])


def lines_of(found):
    with (found.directory / "study.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_is_read_back_as_it_was_returned(whole):
    found, _ = whole
    again = load_study_run(found.directory)
    assert (
        again.complete
        and again.seconds == found.seconds
        and again.metrics
        == tuple(
            metric._replace(value=None, of_counts=False, of_examples=False)
            for metric in found.metrics
        )
    )
    assert command_of(found.directory) == ["python", "again", "a b"]
    tables = [table(each.compare()) for each in (again, found)]
    assert tables[0] == tables[1]
    with pytest.raises(FileNotFoundError, match="holds no study"):
        load_study_run(found.directory / "plots")


def test_a_study_leaves_a_line_for_each_variant_and_seed(whole):
    found, _ = whole
    lines = lines_of(found)
    assert [(line["variant"], line["seed"]) for line in lines] == [
        (name, seed) for name in VARIANTS for seed in ("0", "1")
    ]
    for line in lines:
        assert (line["diverged"], line["rounds"]) == ("False", "4") and float(line["seconds"]) > 0
    # either variant, either seed
    for line, trial in [*zip(lines, found.results.trials, strict=True)][::3]:
        own = {"num_rounds": 4, "eval_clients": -1, "data_seed": trial.seed}
        curves = alone(small_config(**own, **trial.overrides(VARIANTS)), trial)
        chosen = np.nanargmax(curves["eval/val/accuracy"])
        assert int(line["best/round"]) == curves["round"][chosen]
        for name in ("eval/test/loss", "eval/val/loss"):
            np.testing.assert_allclose(
                [float(line[f"best/{name}"]), float(line[f"final/{name}"])],
                [curves[name][chosen], curves[name][-1]],
                rtol=1e-5,
            )
        assert float(line["final/comm/uplink_bytes"]) == curves["comm/uplink_bytes"][-1]


def test_bytes_are_exact_and_trials_of_a_variant_train_side_by_side(whole):
    found, _ = whole
    none, sparse = found.compare().compared
    assert none.spread(lambda one: one.client_bytes) == (4 * COEFFICIENTS, 0)
    # 65 values of 32 bits and as many positions of 10
    sent = sparse.spread(lambda one: one.client_bytes).mean
    assert sent == pytest.approx(65 * (32 + 10) / 8, abs=0.1)
    assert (found.summary["groups"], found.summary["slots"]) == (2, 2)


def test_a_report_is_one_page_in_two_forms(whole):
    found, printed = whole
    text = (found.directory / "report.md").read_text()
    for part in (*(f"`{name}`" for name in VARIANTS), "python again 'a b'", "entropy bound"):
        assert part in text
    page = fljax.reports.write_report(found.directory).read_text()
    assert "<code>top_k(0.1) + error_feedback</code>" in page and "again &#x27;a b&#x27;" in page
    images = re.findall(r'<img alt="[^"]*" src="([^"]*)"', page)
    pictures = re.findall(r"\]\((plots/[\w.-]+)\)", text)
    assert {Path(one).stem for one in pictures} == {"bars", "pareto", "curves", "clients"}
    assert len(images) == len(pictures)
    for image, picture in zip(images, pictures, strict=True):
        kind, _, data = image.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == (found.directory / picture).read_bytes()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "it needs no other file"
    assert "Curves by variant" in page
    # the same table in both, and in what is printed
    table = [line for line in text.splitlines() if line.startswith("|")][:4]
    assert all(line in printed for line in table)
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert [cell.strip() for cell in table[3].strip("|").split("|")][1:] == cells[6:10]


def test_a_study_goes_on_with_more_variants_and_seeds(whole, tmp_path, monkeypatch):
    from fljax.studies.slots import Slots

    found, _ = whole
    some = {"top_k(0.1) + error_feedback": SPARSE}
    settings = SETTINGS | {"reference": None}
    first = fljax.sweep(config_of(), tmp_path, variants=some, seeds=(1,), **settings)
    assert first.complete
    train, calls = Slots.train, []

    def counted(self, num_rounds):
        calls.append(num_rounds * len(self.active))
        return train(self, num_rounds)

    monkeypatch.setattr(Slots, "train", counted)
    # another order, more of both, and what was there keeps its number
    more = fljax.sweep(config_of(), tmp_path, variants=VARIANTS, seeds=(0, 1), **SETTINGS)
    assert sum(calls) == 3 * 4, "three trials of four rounds were missing"
    assert more.results.trials[0]._replace(number=0) == first.results.trials[0]
    assert {(line["variant"], line["seed"]) for line in lines_of(more)} == {
        (name, seed) for name in VARIANTS for seed in ("0", "1")
    }
    expected = {(line["variant"], line["seed"]): line for line in lines_of(found)}
    for line in lines_of(more):
        same = expected[line["variant"], line["seed"]]
        for name in ("best/round", "best/eval/test/loss", "final/comm/uplink_bytes"):
            assert float(line[name]) == pytest.approx(float(same[name]), rel=1e-5)
    calls.clear()
    again = fljax.sweep(config_of(), tmp_path, variants=VARIANTS, seeds=(0, 1), **SETTINGS)
    assert not calls and lines_of(again) == lines_of(more)


# the first and the third train side by side, so that groups do not follow the numbers of trials
MIXED = {"plain": {}, "sparse": SPARSE, "slow": {"client_lr": 0.02}}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A finished study whose groups are mixed."""
    workdir = tmp_path_factory.mktemp("mixed")
    return fljax.sweep(config_of(), workdir, variants=MIXED, seeds=(0, 1), progress=False)


def test_a_killed_study_whose_groups_are_mixed_goes_on(mixed, tmp_path, monkeypatch):
    """Killed in the middle of its first group, and of the other one when it went on."""
    from fljax.studies.slots import Slots

    train, calls = Slots.train, []

    def killed(self, num_rounds):
        calls.append(num_rounds)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt
        return train(self, num_rounds)

    settings = {"variants": MIXED, "seeds": (0, 1), "progress": False, "resume": True}
    monkeypatch.setattr(Slots, "train", killed)
    monkeypatch.setattr("fljax.studies.journal._SAVE_SECONDS", 0.0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fljax.sweep(config_of(), tmp_path, **settings)
    found = fljax.sweep(config_of(), tmp_path, **settings)
    # two stretches of two groups, and the two that were cut off
    assert len(calls) == 6
    assert found.complete and found.results.trials == mixed.results.trials
    timeless = [
        [{name: cell for name, cell in line.items() if name != "seconds"} for line in lines_of(run)]
        for run in (found, mixed)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    ("changed", "variants", "seeds", "message"),
    [
        ({"client_lr": 0.2}, VARIANTS, (0, 1), "another configuration.*client_lr"),
        ({}, {"none": {}}, (0, 1), "2 trials that are not listed any more, such as 0002-top_k"),
        ({}, VARIANTS, (0,), "2 trials that are not listed any more"),
        ({}, VARIANTS | {"none": {"mu": 0.1}}, (0, 1), "variant 'none' was {} and is"),
        (
            {"num_rounds": 5},
            VARIANTS,
            (0, 1),
            "another configuration: num_rounds was 4 and is 5. Re",
        ),
    ],
)
def test_a_study_of_something_else_is_refused(whole, changed, variants, seeds, message):
    found, _ = whole
    with pytest.raises(ValueError, match=message):
        fljax.sweep(
            config_of(**changed), found.directory, variants=variants, seeds=seeds, **SETTINGS
        )


def test_a_variant_that_diverges_does_not_end_the_study(tmp_path):
    variants = {"none": {}, "too fast": {"server_lr": 1e38}}
    config = small_config(num_rounds=2, eval_every=1)
    found = fljax.sweep(config, tmp_path, variants=variants, **SETTINGS)
    assert [line["diverged"] for line in lines_of(found)] == ["False", "True"]
    printed = report(found)
    assert re.search(r"`too fast` \|.*diverged in round", printed)
    assert json.loads((tmp_path / "best.json").read_text())["variant"] == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variants": {"a": {"seed": 1}}}, "changes seed"),
        ({"variants": {"a": {"mu": 1}}, "axes": {"mu": (1, 2)}}, "mu is an axis"),
        ({"variants": {"a": 1}}, r"variants\['a'\]"),
        ({"variants": {" ": {}}}, "name of a variant"),
        ({"columns": "gap"}, "a list of names"),
        ({"columns": [1]}, "a list of names, such as"),
        ({"pictures": None}, "a list of names, such as"),
    ],
)
def test_wrong_studies_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Study(**settings)


LEARNS = """
import numpy as np
from fljax.core.sampler import Sampler

def learns(clients_per_round):
    return Sampler(
        lambda: 0, lambda state, round: (np.arange(clients_per_round), state), clients_per_round,
        lambda state, round, told: state, feedback="delayed",
    )
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"clientlr": 0.1},
            r"variants\['b'\]: Unknown config key 'clientlr'. Did you mean 'client_lr'",
        ),
        ({"qqq": 0.1}, r"variants\['b'\]: Unknown config key 'qqq'. All keys: --config_help"),
        ({"sampler": 3}, r"variants\['b'\]: sampler = 3 .int. must be a text, such as 'uniform'"),
        ({"model_options.width": 3}, r"variants\['b'\]: .*has no argument 'width' = 3"),
        (
            {"algorithm": "fedprox(mu=0.1)", "mu": 0.2},
            "mu = 0.1 is set here, .* sets it to 0.2. Leave",
        ),
        ({"baselines": ["centralized"]}, "baselines differs between the trials .* Leave it out"),
        ({"wandb.mode": "online"}, "wandb.mode differs between the trials"),
        (
            {"sampler": "learning:learns"},
            "'learning:learns' has delayed feedback, which only single",
        ),
        (
            {"algorithm": "local_only", "eval_clients": -1},
            "clients of 'local_only' share none. Set it to 0",
        ),
        ({"patience": 2}, "patience = 2, but a sweep cannot do that. Set it to 0"),
    ],
)
def test_a_wrong_variant_is_refused_in_a_line_before_any_round(
    tmp_path, monkeypatch, overrides, message
):
    from fljax.studies.slots import Slots

    monkeypatch.setattr(Slots, "train", None)  # the first variant's group does not train either
    (tmp_path / "learning.py").write_text(LEARNS)
    config = config_of(code_dir=str(tmp_path))
    variants = {"a": {}, "b": overrides}
    with pytest.raises(ValueError, match=message) as refused:
        fljax.sweep(config, tmp_path / "study", variants=variants, progress=False)
    assert len(str(refused.value)) < 250 and "\n" not in str(refused.value)


def test_wrong_keys_are_named_before_a_reference_that_is_no_variant(tmp_path):
    settings = {"reference": "plain", "progress": False}
    for key, message in (
        ("client_lrr", r"variants\['x'\]: Unknown config key 'client_lrr'"),
        (
            "client_lr",
            "none of the variants: x. Add it to them .on a command line --variant='plain'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            fljax.sweep(config_of(), tmp_path / "no", variants={"x": {key: 1.0}}, **settings)


def test_columns_and_pictures_are_checked_before_anything_runs(tmp_path):
    for name, value in (("columns", "uplink_facter"), ("pictures", "paretto")):
        with pytest.raises(ValueError, match=f"{value}.*{'uplink_factor|pareto'}"):
            settings = {"variants": VARIANTS, name: (value,), "progress": False}
            fljax.sweep(config_of(), tmp_path / "nowhere", **settings)
    assert not (tmp_path / "nowhere").exists()


def test_variants_come_from_the_file_and_the_command_line(tmp_path):
    settings = load_study(f"{ROOT}/configs/compression_tradeoff.py")
    assert settings["reference"] == "none" and len(settings["variants"]) == 21
    assert settings["variants"]["sign per leaf + error_feedback"] == {
        "uplink": "sign", "uplink_per_leaf": True, "uplink_memory": "error_feedback",
    }  # fmt: skip
    assert len(listed_trials(Study(**settings))) == 63
    new = "both: uplink='top_k(0.01), qsgd(4)', uplink_memory=error_feedback, mu=0.5"
    assert parse_variants(["none", new], {"none": {}, "int8": {}}) == {
        "none": {},
        "both": {"uplink": "top_k(0.01), qsgd(4)", "uplink_memory": "error_feedback", "mu": 0.5},
    }
    for texts, message in (
        (["int9"], "names no variant of the file. There are: none"),
        (["int9"], "names no variant of the file. It has none"),
        (["nonee"], "Did you mean 'none'"),
        (["new: uplink"], "must have the form NAME: KEY=VALUE"),
        (["slow client_lr=0.1"], "must have the form NAME: KEY=VALUE"),
        ([": mu=1"], "must have the form NAME: KEY=VALUE"),
        (["new: mu=1", "new: mu=2"], "names the variant 'new' twice"),
        (["new: mu=1, mu=2"], "names a key twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_variants(texts, {} if "It has none" in message else {"none": {}})


def test_settings_come_from_the_file(tmp_path):
    settings = load_study(f"{ROOT}/configs/sweep_fedopt_lr.py:yogi")
    assert settings["seeds"] == (0, 1, 2) and set(settings["axes"]) == {"client_lr", "server_lr"}
    assert load_study(f"{ROOT}/configs/quickstart.py", needed=False) == {}
    with pytest.raises(ConfigError, match="get_sweep"):
        load_study(ROOT / "configs/quickstart.py")
    with pytest.raises(FileNotFoundError, match="missing.py"):
        load_study(tmp_path / "missing.py")
    record = "from fljax.studies import Study\ndef get_study():\n    return Study(seeds=(0, 1))\n"
    (tmp_path / "record.py").write_text(record)
    with pytest.raises(ConfigError, match="must return a dict of settings"):
        load_study(tmp_path / "record.py")


def test_axes_come_from_the_command_line():
    axes = parse_axes(["client_lr=0.1,1", "model=mlp,softmax_regression", "shuffle=True"])
    assert axes == {
        "client_lr": (0.1, 1), "model": ("mlp", "softmax_regression"), "shuffle": (True,)
    }  # fmt: skip
    calls = "uplink=rand_k(0.1, index_format='raw'),'top_k(0.1), qsgd(4)',sign"
    assert parse_axes([calls, "model_options.hidden=(64,),(200, 200)"]) == {
        "uplink": ("rand_k(0.1, index_format='raw')", "top_k(0.1), qsgd(4)", "sign"),
        "model_options.hidden": ((64,), (200, 200)),
    }
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parse_axes(["client_lr"])
    with pytest.raises(ConfigError, match="names 'mu' a second time"):
        parse_axes(["mu=1", "mu=2"])
