"""`import fljax` is light, and every optional package may be absent until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fljax
from fljax.core.optional import PARTS, remedy

BLOCK = f"""
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(PARTS)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run_python(code: str, folder=None) -> str:
    """Runs code in a fresh interpreter and returns what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_only_the_standard_library():
    heavy = {"jax", "numpy", "flax", "optax", *PARTS}
    code = f"import sys, fljax; print(sorted({heavy!r} & set(sys.modules)))"
    assert run_python(code).strip() == "[]"


def test_config_module_does_not_load_jax():
    code = (
        "import sys, fljax.config; from fljax.config import reference; "
        "fljax.config.default_config(); reference.help_text(); print('jax' in sys.modules)"
    )
    assert run_python(code).strip() == "False"


def test_every_module_imports_without_optional_packages():
    absent = run_python(
        BLOCK
        + """
import importlib, pkgutil
import fljax
for name in fljax.__all__:
    getattr(fljax, name)
for module in pkgutil.walk_packages(fljax.__path__, "fljax."):
    if "flower.template." in module.name:
        continue  # they become modules of another application
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        print(module.name, "needs", error.name)
"""
    )
    # a subclass of what ml_collections has, made when a configuration is
    assert absent == "fljax.config.strict needs ml_collections\n"


def test_a_run_without_privacy_imports_nothing_that_only_privacy_needs():
    """Parts of SciPy take longer to import than all of fljax."""
    parts = ("scipy.special", "scipy.optimize", "scipy.stats", "scipy.fft", "cryptography")
    code = f"""
import sys, fljax, fljax.config.experiment
fljax.simulate
print([part for part in {parts!r} if part in sys.modules])
"""
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize(
    ("call", "package"),
    [
        ("fljax.config.default_config()", "ml_collections"),
        ("fljax.data.load('digits', partition='iid', num_clients=2)", "sklearn"),
        ("fljax.recording.plot_curves({}, 'nowhere')", "matplotlib"),
        ("fljax.recording.Checkpoints('nowhere')", "orbax"),
        ("fljax.recording.wandb_sink('offline')", "wandb"),
    ],
)
def test_using_an_absent_package_names_it(call, package, tmp_path):
    code = f"import fljax\ntry:\n    {call}\nexcept ImportError as error:\n    print(error)"
    assert remedy(package) in run_python(BLOCK + code, tmp_path)


def test_public_names_are_reachable_and_listed():
    assert set(fljax.__all__) <= set(dir(fljax))
    for name in fljax.__all__:
        assert getattr(fljax, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="simulat3"):
        fljax.simulat3  # noqa: B018
