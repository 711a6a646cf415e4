"""Faults in a user's own functions are told with the key, the text and the line."""

import re
import sys

import numpy as np
import pytest

import fljax
from fljax import algorithms, data, models
from fljax.config import ConfigError, default_config, experiment, resolve
from fljax.core.own_modules import beside
from fljax.training.task_choice import as_task

FAULTS = """
import numpy as np
from flax import nnx
from fljax import data


class Net(nnx.Module):
    def __init__(self, width, *, rngs):
        self.layer = nnx.Linear(64, width, rngs=rngs)


def number():
    return 0.5


def no_module():
    return lambda rngs: 3


def key_of_nothing(**options):
    return options["nothing"]


def refuses(share=1.0, **options):
    raise ValueError("no")


def offsets(labels):
    return data.Partition(np.array([0, 3, 2]))


def shy(labels, num_clients, alpha=0.3):
    return data.iid(labels, num_clients, seed=int(10 * alpha))
"""


@pytest.fixture
def faulty(tmp_path):
    """A configuration beside a module of faulty functions."""
    (tmp_path / "my_faults.py").write_text(FAULTS)
    config = default_config()
    config.code_dir = str(tmp_path)
    yield config
    sys.modules.pop("my_faults", None)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("model", "my_faults:Net(width=0)", r"fails with ZeroDivisionError: .*my_faults.py, line"),
        ("model", "my_faults:number", r"returned 0.5 .float.. 0.5 is no model. Pass a function"),
        ("model", "my_faults:no_module", r"gives 3 .int. where it is called with nnx.Rngs"),
        ("model", "my_faults:key_of_nothing", r"fails with KeyError: .nothing. .my_faults.py"),
        ("partition", "my_faults:key_of_nothing", r"fails with KeyError: 'nothing' .my_faults.py"),
        ("partition", "my_faults:offsets", r"fails with ValueError: offsets must .*my_faults.py"),
        ("dataset", "my_faults:key_of_nothing", r"fails with KeyError: 'nothing' .my_faults.py"),
        ("algorithm", "my_faults:key_of_nothing", r"fails with KeyError: 'nothing' .my_faults.py"),
        ("task", "my_faults:key_of_nothing", r"fails with KeyError: 'nothing' .my_faults.py"),
    ],
)  # fmt: skip
def test_what_fails_in_own_code_is_said_in_a_line_with_key_and_text(faulty, key, text, message):
    faulty[key] = text
    python = {
        "model": lambda: as_task(text, data.load("digits", num_clients=3)),
        "partition": lambda: data.load("digits", partition=text),
        "dataset": lambda: data.load(text),
        "algorithm": lambda: algorithms.make(text),
        "task": lambda: fljax.tasks.make(text, models.mlp((2, 3)), 3),
    }
    for call in (lambda: experiment.make_experiment(faulty), python[key]):
        with beside(faulty.code_dir), pytest.raises(ValueError) as failure:
            call()
        said = str(failure.value)
        assert said.startswith(f"{key} = '{text}': {text.partition('(')[0]} "), said
        assert re.search(message, said) and "\n" not in said


def test_floats_that_nobody_gave_are_not_named(faulty):
    faulty.update({"dataset": "my_faults:refuses(share=2.0)", "val_fraction": 0.0})
    with beside(faulty.code_dir), pytest.raises(ValueError) as failure:
        experiment.make_dataset(faulty)
    assert re.search(r"no \(my_faults.py, line \d+\). share = 2.0 is a float", str(failure.value))
    assert str(failure.value).count("is a float") == 1


def test_options_reach_own_partitions_whatever_their_value(faulty):
    faulty.num_clients = 12
    drawn = {}
    for text in ("iid", "my_faults:shy"):
        for alpha in (None, 0.5):
            faulty.update({"partition": text, "alpha": alpha})
            if text == "iid" and alpha:
                with pytest.raises(ConfigError, match="alpha = 0.5 has no effect .* it unset, or"):
                    resolve(faulty)
                continue
            resolved = resolve(faulty)
            assert resolved.alpha == alpha and resolve(resolved) == resolved
            drawn[text, alpha] = experiment.make_dataset(faulty).train.partition
    for alpha, seed in ((None, 3), (0.5, 5)):
        expected = data.load("digits", num_clients=12, seed=seed).train.partition
        assert np.array_equal(drawn["my_faults:shy", alpha].index, expected.index)
    assert resolve({"partition": "dirichlet"}).alpha == 0.5
    assert resolve({"partition": "dirichlet(alpha=0.2)"}).alpha == 0.2
