"""Privacy from a configuration: what is printed before a run, and what is refused."""

import re

import pytest
from small_sweeps import small_config

from fljax.config import ConfigError, resolve
from fljax.config.experiment import dry_run, make_experiment, privacy_report

pytestmark = pytest.mark.usefixtures("quick_compilation", "weights_as_written")

PRIVATE = {"privacy": "gaussian(0.3)", "sampler": "poisson", "weighting": "uniform"}
PRIVATE |= {"num_clients": 24, "delta": 1e-3}


def test_a_report_says_what_a_run_would_spend_and_promise():
    """Without a round of it; the dry run says the same beside all else."""
    config = small_config(**PRIVATE, noise_multiplier=2.0)
    text = privacy_report(config)
    rows = dict(line.split(None, 1) for line in text.splitlines() if "not covered" not in line)
    assert rows["sampling"].startswith("each client takes part in a round with probability 0.16")
    assert rows["neighbours"] == "data sets with and without one of them"
    assert rows["noise"] == "multiplier 2, clipping norm 0.3"
    accounted = "(PLD) at delta = 0.001 after 6 rounds"
    assert "(RDP), " in rows["epsilon"] and accounted in rows["epsilon"]
    assert text.count("not covered") == 3
    assert dry_run(config).endswith(text)
    with pytest.raises(ConfigError, match="privacy is unset.*--config.privacy"):
        privacy_report(small_config())


def test_a_report_says_how_a_budget_is_kept():
    text = privacy_report(small_config(**PRIVATE, target_epsilon=4.0))
    assert "budget       epsilon = 4, the noise was chosen for it" in text
    text = privacy_report(small_config(**PRIVATE, target_epsilon=3.0, noise_multiplier=0.8))
    (last,) = re.findall(r"epsilon = 3, the run ends after (\d) of 6 rounds", text)
    assert f"at delta = 0.001 after {last} rounds" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"privacy": "gausian"}, "there is no 'gausian'. Did you mean 'gaussian'?"),
        ({"privacy": None}, "delta = 0.001 has no effect without privacy"),
        ({"clip_norm": -1.0}, "clip_norm = -1.0 must be above 0"),
        ({"delta": 1.0}, "delta = 1.0 must be above 0 and below 1"),
        ({"max_grad_norm": 1.0}, "Opacus's name; here it is called 'clip_norm'"),
        ({"secure_aggregation": "nothing"}, "there is no 'nothing'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_keys_are_refused_as_they_are_read(values, message):
    with pytest.raises(ConfigError, match=message):
        resolve(small_config(**PRIVATE).to_dict() | values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip_norm": 0.5}, "clip_norm = 0.3 is set here, and an option or key sets it to 0.5"),
        ({"privacy": "gaussian(noise=2)"}, "has no argument 'noise' = 2"),
        ({"weighting": "examples"}, "weighting='examples'.*weight_cap"),
        ({"sampler": "uniform"}, "twice the clip norm.*sampler='poisson'"),
        ({"delta": 0.05}, "delta = 0.05 must be below 1/N = 0.0416"),
        ({"uplink": "fetch_sgd"}, "decodes the sum of all messages"),
        ({"uplink": "qsgd(8)", "uplink_memory": "ef21"}, "memory on the server"),
        ({"num_clients": 4}, "which of 4 clients.*dpsgd"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_no_theorem_covers_is_refused_before_anything_is_built(values, message):
    with pytest.raises(ConfigError, match=message):
        make_experiment(small_config(**PRIVATE | {"noise_multiplier": 2.0} | values))
