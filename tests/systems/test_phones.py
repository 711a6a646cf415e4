"""Phones of FLASH: models by share, by rank and by code, their times, links and memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fljax.systems.jobs import job_times
from fljax.systems.phones import MEASURED, SHARES, phones, read_phones, step_seconds

N = 40_000
FILES = {
    "benchmark2score.json": {"quick": 9000, "old": 400, "mid": 3000, "other": 1500, "tie": 1700},
    "supported_devices.json": ["old", "mid", "quick"],
    "real2benchmark.json": {"Q1": "quick", "X": "unknown", "O1": "other", "Z": "gone"},
    "speed_distri.json": {
        "a": {"down_u": 8000, "down_sigma": 800.0, "up_u": 2000, "up_sigma": 1000.0},
        "b": {"down_u": 4000, "down_sigma": 400.0, "up_u": 1000, "up_sigma": 0.0},
    },
    "raw_ai_benchmark_list.json": [
        {"Model": name, "RAM": f"{ram}GB"}
        for name, ram in [
            ("quick", 8),
            ("old", 0.5),
            ("mid", 4),
            ("other", 2),
            ("tie", 3),
            ("old", 9),
        ]
    ],
}


def written(tmp_path, **changed):
    for name, value in FILES.items():
        content = changed.get(name.partition(".")[0], value)
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def test_files_are_read(tmp_path):
    known = read_phones(written(tmp_path))
    assert known.names == ("quick", "old", "mid", "other", "tie")
    assert known.measured.tolist() == [1, 2, 0]
    # 1500 is 1100 from the old one and 1500 from the one in the middle; 1700 is 1300 from both
    assert known.nearest.tolist() == [2, 0, 1, 0, 0]
    assert known.ram_gb.tolist() == [8, 0.5, 4, 2, 3]
    assert known.codes == {"Q1": 0, "O1": 3}
    assert known.links.tolist() == [[8, 0.8, 2, 1], [4, 0.4, 1, 0]]


def test_measured_phones_have_their_shares_and_times(tmp_path):
    devices = phones(N, 1, folder=written(tmp_path))
    shares = np.bincount(devices.tier, minlength=3) / N
    assert np.allclose(shares, np.array(SHARES) / sum(SHARES), atol=0.01)
    assert devices.tiers == ("old", "mid", "quick")
    assert np.array_equal(devices.step_seconds, np.array([1.642, 0.588, 0.179])[devices.tier])
    pairs = {*zip(devices.downlink_mbps, devices.downlink_sd, devices.uplink_mbps, strict=True)}
    assert pairs == {(8.0, 0.8, 2.0), (4.0, 0.4, 1.0)}
    assert abs((devices.uplink_mbps == 2).mean() - 0.5) < 0.01
    assert abs(np.corrcoef(devices.tier, devices.uplink_mbps)[0, 1]) < 0.02
    assert np.isinf(devices.memory_gb).all()
    few = phones(5, 1, folder=tmp_path)
    assert np.array_equal(few.step_seconds, devices.step_seconds[:5])
    assert np.array_equal(few.uplink_mbps, devices.uplink_mbps[:5])
    times = job_times(devices, np.arange(100), 3, 1e6, 1e6, 0, 1)
    assert len({*times.upload}) > 40  # all jobs but those of users that never vary
    fixed = phones(5, 1, vary=False, links="kilobytes", task="reddit", folder=tmp_path)
    assert fixed.uplink_sd is None and np.array_equal(fixed.uplink_mbps, 8 * few.uplink_mbps)
    assert set(fixed.step_seconds) <= {2.596, 0.916, 0.5277}


def test_ranked_phones_are_drawn_alike_and_take_the_nearest_time(tmp_path):
    devices = phones(N, 1, "ranked", memory_share=0.5, folder=written(tmp_path))
    memory, counts = np.unique(devices.memory_gb, return_counts=True)
    assert memory.tolist() == [0.25, 1, 1.5, 2, 4] and np.allclose(counts / N, 0.2, atol=0.01)
    assert set(devices.step_seconds[np.isin(devices.memory_gb, [1, 1.5])]) == {1.642}


def test_codes_are_phones_and_others_are_drawn(tmp_path):
    devices = phones(N, 1, ["Q1", "O1", "X", "never heard of"], folder=written(tmp_path))
    assert (devices.step_seconds[::4] == 0.179).all() and (
        devices.step_seconds[1::4] == 1.642
    ).all()
    drawn = np.bincount(devices.tier[2::4], minlength=3) / (N / 4)
    assert np.allclose(drawn, np.array(SHARES) / sum(SHARES), atol=0.02)


def test_fitted_times_are_least_squares_of_logarithms(tmp_path):
    known = read_phones(written(tmp_path))
    line = np.polyfit(np.log([400, 3000, 9000]), np.log(MEASURED["celeba"]), 1)
    expected = np.exp(np.polyval(line, np.log(known.scores))) / 1000
    assert np.allclose(step_seconds(known, "fitted", "celeba"), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": "mesured"}, "Did you mean 'measured'"),
        ({"models": []}, "empty list"),
        ({"times": "guessed"}, "times"),
        ({"task": "mnist"}, "task"),
        ({"links": "bits"}, "links"),
        ({"memory_share": 2}, "memory_share"),
        ({"num_clients": 0}, "num_clients"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        phones(**{"num_clients": 3, "folder": written(tmp_path), **arguments})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"supported_devices": ["old", "mid"]}, "supported_devices.json names other than 3"),
        ({"supported_devices": ["old", "mid", "new"]}, "names other than 3"),
        ({"benchmark2score": {"old": 0, "mid": 1, "quick": 2}}, "not positive"),
        ({"speed_distri": {"a": {"down_u": 1}}}, "down_sigma"),
        ({"speed_distri": {}}, "down_sigma"),
        ({"raw_ai_benchmark_list": [{"Model": "old", "RAM": "lots"}]}, "old has lots"),
        ({"raw_ai_benchmark_list": []}, "how much memory quick has"),
    ],
)
def test_other_files_are_refused_by_name(changed, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_phones(written(tmp_path, **changed))


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FLJAX_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="devices"):
        phones(3)
    (tmp_path / "devices").mkdir()
    with pytest.raises(FileNotFoundError, match=r"benchmark2score\.json"):
        phones(3)
    written(tmp_path / "devices")
    assert phones(3).num_clients == 3


def test_the_real_files(data_dir):
    if not (data_dir / "devices").is_dir():
        pytest.skip("FLJAX_DATA_DIR has no devices")
    known = read_phones(data_dir / "devices")
    assert len(known.names) == 307 and len(known.links) == 19
    assert [known.names[place] for place in known.measured] == [
        "Google Nexus S", "Xiaomi Redmi Note 7 Pro", "Google Pixel 4",
    ]  # fmt: skip
    assert known.scores[known.measured].tolist() == [383, 6702, 33289]
    assert (known.scores.min(), known.scores.max()) == (212, 76206)
    assert known.links[:, 0].min() == pytest.approx(2.37, abs=0.01)
    fitted = step_seconds(known, "fitted", "femnist")
    ratio = fitted[known.measured] / np.array([1.642, 0.588, 0.179])
    assert np.allclose(ratio, [1.10, 0.77, 1.18], atol=0.005)  # as the docstring says
    assert np.allclose(fitted, 31.31 * known.scores**-0.48022, rtol=1e-3)
    share = np.bincount(phones(N, folder=data_dir / "devices").tier) / N
    assert np.allclose(share, [0.5315, 0.4640, 0.0045], atol=0.008)
