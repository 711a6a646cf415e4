"""Every public function and record of a room has an example in its docstring, and the examples run.

They may use jax, jnp, np, optax, nnx and the public rooms without importing them, as a reader of
the documentation would. Those that need files are marked `+SKIP`.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import fljax
import fljax_kernels

ROOMS = (
    "algorithms",
    "compression",
    "config",
    "data",
    "models",
    "privacy",
    "recording",
    "reports",
    "studies",
    "tasks",
)
NAMES = {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "nnx": nnx, "fljax": fljax}


def public(room: str) -> dict:
    """Returns {name: function or class} of what a room exports."""
    module = importlib.import_module(f"fljax.{room}".rstrip("."))
    found = {name: getattr(module, name) for name in module.__all__}
    return {
        name: value
        for name, value in found.items()
        if inspect.isroutine(value) or inspect.isclass(value)
    }


# modules whose names are supported, and those whose functions are not exported but have examples
SUPPORTED = (
    "core.algorithm", "core.metrics", "core.sampler", "core.task", "core.transforms",
    "privacy.mechanism", "training.federation",
)  # fmt: skip
PACKAGE = Path(fljax.__file__).parent
# rooms of which every file is asked, but those whose names are supported
WHOLE = (
    "analytics",
    "audits",
    "export",
    "privacy",
    "reports",
    "robustness",
    "selection",
    "systems",
)
MODULES = (
    *SUPPORTED, "algorithms.cfl", "algorithms.feddrift", "algorithms.merging",
    "algorithms.optimal_sampling", "algorithms.power_of_choice",
    "commands.arguments", "commands.candidates", "commands.tables", "config.shipped",
    "core.canaries", "core.cgroups", "core.clusterings", "core.deprecation", "core.digits",
    "core.optional", "core.transmission", "core.trees", "core.wire_bytes",
    "data.examples", "data.pictures.image_rows",
    "studies.criterion", "studies.search", "training.record_keys", "core.item_sets",
    "tasks.concordance", "tasks.probes", "tasks.keys", "training.monitoring",
    "core.durations", "recording.participation_plots", "recording.timeline",
    "recording.timeline_plots", "training.selection_summary",
    "training.asked_columns", "training.asked_report", "training.edge_costs",
    "training.compression", "training.pass_flops",
    *sorted(
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for room in WHOLE
        for path in (PACKAGE / room).rglob("[!_]*.py")
        if ">>>" in path.read_text() and path.stem != "mechanism"
    ),
)  # fmt: skip
EXPORTS = [(room, name) for room in (*ROOMS, "") for name in public(room)]


@pytest.mark.parametrize(("room", "name"), EXPORTS, ids=lambda part: part)
def test_examples_run(room, name, tmp_path, monkeypatch, quick_compilation):
    monkeypatch.chdir(tmp_path)
    value = public(room)[name]
    names = NAMES | {room_name: getattr(fljax, room_name) for room_name in ROOMS}
    docstring = inspect.getdoc(value) or ""
    example = doctest.DocTestParser().get_doctest(docstring, names, f"{room}.{name}", None, None)
    assert example.examples, f"fljax.{room}.{name} has no example"
    assert not failures(example)


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_a_module_run(module, tmp_path, monkeypatch, quick_compilation):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"fljax.{module}")
    names = vars(module) | NAMES | {room: getattr(fljax, room) for room in ROOMS}
    names.setdefault(module.__name__.rpartition(".")[2], module)  # unless a function is called so
    found = [
        example for example in doctest.DocTestFinder().find(module, globs=names) if example.examples
    ]
    assert found and not "".join(map(failures, found))


@pytest.mark.parametrize("module", SUPPORTED)
def test_what_may_be_imported_is_listed_and_has_examples(module):
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    assert f"`fljax.{module}`" in page.partition("## Imports")[2]
    own = {name: value for name, value in public(module).items() if hasattr(value, "__module__")}
    missing = [
        name
        for name, value in own.items()
        if value.__module__ == f"fljax.{module}" and ">>>" not in (value.__doc__ or "")
    ]
    assert own and not missing


KERNELS = [
    name for name in fljax_kernels.__all__ if inspect.isfunction(getattr(fljax_kernels, name))
]


@pytest.mark.parametrize("name", KERNELS)
def test_examples_of_kernels_run(name):
    names = {"jax": jax, "jnp": jnp} | vars(fljax_kernels)
    docstring = inspect.getdoc(getattr(fljax_kernels, name)) or ""
    example = doctest.DocTestParser().get_doctest(docstring, names, name, None, None)
    assert example.examples, f"fljax_kernels.{name} has no example"
    assert not failures(example)


def failures(example: doctest.DocTest) -> str:
    """Runs an example; returns what differs from what it says."""
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    return "".join(said)
