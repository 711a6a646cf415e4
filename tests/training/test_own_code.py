"""A resumed run says where the user's own code has changed, and goes on."""

import importlib
import sys
import warnings

import numpy as np
import pytest
import toy

import fljax
from fljax import algorithms
from fljax.core.own_modules import beside
from fljax.training.own_code import own_code

pytestmark = pytest.mark.usefixtures("quick_compilation")
CODE = """
from fljax import algorithms


def slow():
    return algorithms.fedavg(0.1)
"""


def simulate(workdir, num_rounds, **options):
    return fljax.simulate(
        toy.dataset(toy.clients(dtype=np.float32)), toy.softmax_task(np.float32), "my_code:slow",
        num_rounds=num_rounds, clients_per_round=4, batch_size=4, devices=1, lanes=1,
        workdir=workdir, progress=False, **options,
    )  # fmt: skip


def test_a_change_is_warned_of_with_its_file(tmp_path):
    file = tmp_path / "my_code.py"
    file.write_text(CODE)
    try:
        with beside(tmp_path):
            run = simulate(tmp_path / "run", 1)
            assert run.config["own_code"]["algorithm, my_code"][0] == "my_code.py"
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="The code of")
                simulate(tmp_path / "run", 2, resume=True)
            file.write_text(CODE + "\n# of another day\n")
            importlib.invalidate_caches()
            message = "algorithm, my_code in my_code.py has changed .*another --workdir"
            with pytest.warns(UserWarning, match=message):
                run = simulate(tmp_path / "run", 3, resume=True)
            assert run.rounds[-1] == 3
    finally:
        sys.modules.pop("my_code", None)


def test_code_of_ones_own_is_found_in_functions_classes_and_records():
    def build(task, hparams):
        return None

    spec = algorithms.fedavg(0.1)
    found = own_code({"model": toy.softmax_task, "algorithm": spec._replace(build=build)})
    assert [name.split(".")[-1] for name in found] == ["model, softmax_task", "build"]
    assert {file for file, _ in found.values()} == {"toy.py", "test_own_code.py"}
    ours = {"model": toy.softmax_task(), "algorithm": spec, "uplink": "top_k(0.1)", "sampler": None}
    assert not any(name.startswith(("algorithm", "uplink", "sampler")) for name in own_code(ours))
