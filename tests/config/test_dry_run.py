"""Dry runs say what a run would do, send and need."""

import math

import pytest

from fljax.config import dry_run as dry_runs
from fljax.config import experiment, resolve

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")


@pytest.fixture(autouse=True)
def needed_bytes(monkeypatch):
    """Dry runs compile no round program; returns what would."""
    compiles = dry_runs.needed_bytes
    monkeypatch.setattr(dry_runs, "needed_bytes", lambda *_: None)
    return compiles


DRY = {"num_rounds": 20, "clients_per_round": 10, "num_clients": 40, "local_epochs": 2,
       "batch_size": 10, "partition": "iid", "val_fraction": 0.0, "devices": 2}  # fmt: skip


def rows_of(text):
    """Returns {first word or words: rest} of a dry run."""
    return dict(line.split("  ", 1) for line in text.splitlines())


def amount(text, unit):
    """Returns the first number before a unit, prefix included."""
    words = text.replace(",", "").split()
    place = next(n for n, word in enumerate(words) if word in {p + unit for p in "kMGT"})
    return float(words[place - 1]) * {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[words[place][0]]


def dry_run(**config):
    return {
        name: text.strip()
        for name, text in rows_of(experiment.dry_run(resolve(DRY | config))).items()
    }


def test_a_dry_run_says_what_the_run_would_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = dry_run()
    sizes = experiment.make_dataset(resolve(DRY)).train.partition.sizes
    steps = 2 * -(-sizes // 10)
    assert found["dataset"].startswith(f"digits, {sizes.sum():,} training rows")
    assert found["clients"].startswith(f"40, rows min {sizes.min()}")
    assert found["rounds"] == "20 of 10 clients"
    assert found["local steps"] == f"{steps.mean():.1f} a client, {10 * steps.mean():,.0f} a round"
    assert found["parameters"] == "650 (2.60 kB)"
    # 64 features: a product forward and one for the weights' gradient, 2 operations each
    by_hand = 4 * 64 * 10 * 10 * (10 * steps.mean())
    assert amount(found["FLOPs"], "FLOP") == pytest.approx(by_hand, rel=0.05)
    in_all = found["FLOPs"].split("a round")[1]
    assert amount(in_all, "FLOP") == pytest.approx(20 * by_hand, rel=0.05)
    nbytes = experiment.make_dataset(resolve(DRY)).train.examples.nbytes
    assert amount(found["memory"], "B") == pytest.approx(nbytes, rel=0.02)
    assert found["execution"] == "2 cpu device(s) x 1 lane(s), waves of 1"
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_xla_says_of_the_memory(needed_bytes, monkeypatch):
    assert "round program" not in dry_run()["memory"]
    monkeypatch.setattr(dry_runs, "needed_bytes", needed_bytes)
    data, program = dry_run(devices=1)["memory"].split(", round program ")
    # with its arguments: the data, the model, the plan
    assert amount(data, "B") < amount(program, "B") < 2 * amount(data, "B")
    assert program.endswith("a device")


@pytest.mark.parametrize(("algorithm", "times"), [("ditto", 1), ("scaffold", 2), ("fedsgd", 1)])
def test_a_dry_run_counts_what_is_sent(algorithm, times):
    epochs = {"local_epochs": 1} if algorithm == "fedsgd" else {}
    found = dry_run(algorithm=algorithm, **epochs)["communication"]
    one_way = times * 10 * 650 * 4
    down, up = found.split("down and")
    assert amount(down, "B") == pytest.approx(one_way, rel=1e-2)
    assert amount(up, "B") == pytest.approx(one_way, rel=1e-2)
    assert amount(up.split("a round")[1], "B") == pytest.approx(40 * one_way, rel=1e-2)


COMPRESSED = {"uplink": "top_k(0.1), qsgd(4)", "uplink_memory": "error_feedback",
              "downlink": "int8", "downlink_memory": "difference"}  # fmt: skip
# 65 of 650: positions of 10 bits, levels of 4, one norm
COMPRESSED_BITS = {"up": 65 * (10 + 4) + 32, "down": 650 * 8 + 32}


@pytest.mark.parametrize(("algorithm", "rest"), [("fedavg", 0), ("scaffold", 650 * 32)])
def test_a_dry_run_counts_compressed_bits(algorithm, rest):
    found = dry_run(algorithm=algorithm, **COMPRESSED)
    up, down = (COMPRESSED_BITS[side] + rest for side in ("up", "down"))
    dense = 650 * 32 + rest
    assert found["uplink"] == f"{up:,} bits a client, {dense / up:.1f} times fewer than {dense:,}"
    assert found["downlink"].startswith(f"{down:,} bits a client, {dense / down:.1f} times")
    raw, bitmap, entropy = (float(word) for word in found["positions"].split() if word[0].isdigit())
    assert (raw, bitmap) == (650, 650) and entropy == pytest.approx(
        math.log2(math.comb(650, 65)), abs=0.5
    )
    assert amount(found["communication"].split("down and")[1], "B") == pytest.approx(
        10 * up / 8, abs=5
    )


@pytest.mark.parametrize(
    ("uplink", "said"),
    [
        (
            "fetch_sgd(0.1, rows=5, columns=650)",
            "104,000 bits a client, 5.0 times as many as 20,800 without compression",
        ),
        ("powersgd(10)", "20,800 bits a client, as many as without compression"),
    ],
)
def test_what_does_not_shrink_is_said(uplink, said):
    with pytest.warns(UserWarning, match="nothing is saved"):
        assert dry_run(uplink=uplink)["uplink"] == said


def test_a_compressed_run_sends_what_the_dry_run_counts(tmp_path):
    config = resolve({"num_rounds": 2, "clients_per_round": 3, "devices": 2} | COMPRESSED)
    run, _ = experiment.run_config(config, tmp_path / "run")
    up, down = COMPRESSED_BITS["up"], COMPRESSED_BITS["down"]
    assert run.summary["uplink_bytes"] == -(-2 * 3 * up // 8)
    assert run.summary["downlink_bytes"] == -(-2 * 3 * down // 8)
    assert run.curves["comm/client_uplink_bytes_max"][-1] == -(-up // 8)
    assert {name: run.config[name] for name in COMPRESSED} == COMPRESSED


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"uplink_memory": "marina"}, "clients_per_round = 100 and sampler = 'uniform'"),
        (
            {"uplink_memory": "marina", "clients_per_round": 100, "sampler": "poisson"},
            "needs every client in every round",
        ),
        ({"uplink_memory": "diana"}, "Set weighting = 'uniform'"),
    ],
)
def test_memories_refuse_cohorts_that_they_are_not_for(config, message):
    with pytest.raises(ValueError, match=message):
        experiment.make_experiment({"uplink": "qsgd(8)"} | config)
    for fit in ({"clients_per_round": 100, "sampler": "uniform"}, {"weighting": "uniform"}):
        if "clients_per_round" in fit or config["uplink_memory"] == "diana":
            experiment.make_experiment({"uplink": "qsgd(8)"} | config | fit)
