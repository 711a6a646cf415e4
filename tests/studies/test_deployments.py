"""Deployments side by side: runs by stream, detector and seed, read back where they were run."""

from pathlib import Path

import numpy as np
import pytest

from fljax.config import ConfigError, default_config, with_keys
from fljax.studies import deployments

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROOT = Path(__file__).parents[2]
KEYS = {
    "dataset": "digits", "num_clients": 6, "own_test_fraction": 0.3, "model": "softmax_regression",
    "clients_per_round": 6, "num_rounds": 12, "batch_size": 20, "client_lr": 0.1, "devices": 1,
    "lanes": 2,
}  # fmt: skip
SETTINGS = deployments.Deployments(
    {"turned labels": "label_rotations(2), sudden(6)"}, ("loss_rise(0.3)", "none"), 4, 3,
    watch_rows=4,
)  # fmt: skip


def test_runs_are_compared_and_repeated_only_where_they_are_missing(tmp_path, monkeypatch):
    config = with_keys(default_config(), KEYS)
    found = deployments.run_deployments(config, SETTINGS, tmp_path)
    watched, alone = deployments.rows_of(found)
    assert (watched["detector"], watched["delay"], watched["missed"]) == ("loss_rise(0.3)", 0, 0)
    assert watched["recovered"] > 0.2 and watched["trained_rounds"] == 7
    assert (alone["detector"], alone["delay"], alone["recovered"]) == ("none", None, None)
    assert watched["error"] < alone["error"]
    assert (tmp_path / "deployments.png").stat().st_size > 1000
    assert "turned labels  none " in deployments.table_of(found)
    # one that was interrupted begins again, and goes the same way
    (tmp_path / "turned_labels" / "none" / "0" / "summary.json").unlink()
    again = deployments.run_deployments(config, SETTINGS, tmp_path)
    assert deployments.rows_of(again) == deployments.rows_of(found)
    monkeypatch.setattr(deployments, "monitor", None)
    read = deployments.run_deployments(config, SETTINGS, tmp_path)
    for one, other in zip(read, found, strict=True):
        np.testing.assert_array_equal(one.errors, other.errors)


def test_the_study_of_drift_over_time_is_one():
    settings = deployments.load_deployments(f"{ROOT}/configs/drift_over_time.py")
    assert "adwin" in settings.detectors and deployments.NONE in settings.detectors
    with pytest.raises(ConfigError, match="defines no function get_deployments"):
        deployments.load_deployments(f"{ROOT}/configs/quickstart.py")
