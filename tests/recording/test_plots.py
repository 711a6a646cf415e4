"""Plots: every picture that the data allow, and none that they do not."""

import numpy as np
import pytest
from matplotlib.image import imread

from fljax.recording import plot_curves


def curves(rounds=60, every=10, sends=True, level=1.0):
    r = np.arange(1.0, rounds + 1)
    evaluated = np.where(r % every == 0, 1.0, np.nan)
    made = {
        "round": r,
        "train/loss": level * 2 / r,
        "eval/test/loss": evaluated * level * 2.5 / r,
        "eval/test/accuracy": evaluated * level * (1 - 1 / r),
    }
    sent = {"comm/uplink_bytes": r * 5e6, "comm/downlink_bytes": r * 5e6}
    return made | (sent if sends else {})


def ink(path):
    """Share of pixels that are not white."""
    return float((imread(path)[..., :3].min(axis=-1) < 0.95).mean())


def colours(path):
    """Distinct saturated colours that cover more than a few pixels."""
    pixels = np.round(imread(path)[..., :3] * 255).astype(int).reshape(-1, 3)
    unique, counts = np.unique(pixels, axis=0, return_counts=True)
    return unique[(counts > 150) & (np.ptp(unique, axis=1) > 120)]


def test_three_pictures_with_all_runs(tmp_path):
    alone = plot_curves({"federated": curves()}, tmp_path / "alone")
    both = plot_curves(
        {"federated": curves(), "centralized": curves(sends=False, level=0.7)},
        tmp_path / "both",
        target=0.9,
    )
    assert [path.name for path in both] == ["loss.png", "accuracy.png", "bytes.png"]
    for single, double in zip(alone, both, strict=True):
        assert ink(single) > 0.01
        assert ink(double) > ink(single)
        assert len(colours(double)) > len(colours(single)) >= 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"round": np.array([])}, []),
        ({"round": np.array([1.0]), "train/loss": np.array([np.nan])}, []),
        ({"round": np.array([1.0]), "train/loss": np.array([2.0])}, ["loss.png"]),
        ({"eval/clients/mean": np.array([0.5])}, ["accuracy.png"]),
        ({"eval/triggered/accuracy": np.array([0.5])}, ["accuracy.png"]),
        (
            {"eval/test/accuracy": np.array([0.5]), "comm/uplink_bytes": np.array([8.0])},
            ["accuracy.png", "bytes.png"],
        ),
    ],
)
def test_pictures_without_values_are_left_out(tmp_path, given, expected):
    written = plot_curves({"federated": curves(0), "local_only": given}, tmp_path)
    assert [path.name for path in written] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
