"""Makes the pages of the API reference: one a room, of what it exports and what has examples."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import fljax
from generators.outside import ROOT


class Room(NamedTuple):
    """A page: its title, and the modules whose names it has."""

    title: str
    modules: tuple[str, ...]


# page -> what it holds, in the order of the house: first what one calls, then what that is made of
ROOMS = {
    "index": Room("fljax", ()),
    "data": Room("Data", ("fljax.data",)),
    "models": Room("Models", ("fljax.models",)),
    "tasks": Room("Tasks", ("fljax.tasks",)),
    "algorithms": Room("Algorithms", ("fljax.algorithms",)),
    "compression": Room("Compression", ("fljax.compression",)),
    "privacy": Room("Privacy", ("fljax.privacy", "fljax.privacy.mechanism")),
    "robustness": Room("Robustness", ("fljax.robustness",)),
    "selection": Room("Selection", ("fljax.selection",)),
    "systems": Room("Systems", ("fljax.systems",)),
    "analytics": Room("Analytics", ("fljax.analytics",)),
    "audits": Room("Audits", ("fljax.audits",)),
    "recording": Room("Recording", ("fljax.recording",)),
    "config": Room("Config", ("fljax.config",)),
    "studies": Room("Studies", ("fljax.studies",)),
    "reports": Room("Reports", ("fljax.reports",)),
    "export": Room("Export", ("fljax.export",)),
    "contracts": Room(
        "Contracts",
        (
            "fljax.core.algorithm",
            "fljax.core.transforms",
            "fljax.core.task",
            "fljax.core.metrics",
            "fljax.core.sampler",
            "fljax.training.federation",
        ),
    ),
    "kernels": Room("Kernels", ("fljax_kernels",)),
}
# rooms of which nothing but what ROOMS names may be relied on, as docs/extending.md says
INTERNAL = ("benchmarks", "commands", "core", "engine", "training")
_FOLDERS = {"fljax": ROOT, "fljax_kernels": ROOT / "kernels"}


def pages() -> dict[str, str]:
    """Returns {page of the site: its Markdown}.

    Example:
      >>> "api/data.md" in pages()
      True
    """
    return {f"api/{name}.md": _page(name, room) for name, room in ROOMS.items()}


def exported(room: str) -> dict[str, str]:
    """Returns {name: path of the object} of what a page of `ROOMS` documents.

    Example:
      >>> exported("index")["simulate"], exported("data")["digits"]
      ('fljax.training.simulation.simulate', 'fljax.data.digits')
    """
    if room == "index":
        return {name: f"fljax.{where}.{name}" for name, where in fljax._FUNCTIONS.items()}
    return {name: path for module in ROOMS[room].modules for name, path in _names(module)}


def _page(name: str, room: Room) -> str:
    if name == "index":
        names, elsewhere = (
            exported(name),
            {p for r in ROOMS if r != name for p in exported(r).values()},
        )
        own = {function: path for function, path in names.items() if path not in elsewhere}
        lines = [_INDEX, *_rooms(), "", "## Functions at the top", "", *_summary(names)]
        return "\n".join([*lines, *_objects(own, "fljax")])
    lines = [f"# {room.title}", ""]
    for module in room.modules:
        if len(room.modules) > 1:
            lines += [f"## `{module}`", ""]
        lines += [_first_paragraph(_file(module)), "", f"Module `{module}`.", ""]
        groups: dict[str, dict[str, str]] = {}
        for exported_name, path in _names(module):
            groups.setdefault(_group(module, exported_name, path), {})[exported_name] = path
        for group in sorted(groups):
            if group and len(room.modules) == 1:
                lines += [f"## {group.replace('_', ' ').capitalize()}", ""]
            lines += [*_summary(groups[group]), *_objects(groups[group], module)]
    return "\n".join(lines)


def _rooms() -> Iterator[str]:
    yield "| page | holds |"
    yield "| --- | --- |"
    for name, room in ROOMS.items():
        if room.modules:
            says = " ".join(_first_paragraph(_file(module)) for module in room.modules[:1])
            says = "What parts of one's own are made of." if name == "contracts" else says
            yield f"| [{room.title}]({name}.md) | {says} |"


def _summary(names: dict[str, str]) -> Iterator[str]:
    """Yields a table of what follows: names and first sentences."""
    if len(names) > 3:
        yield "| | |"
        yield "| --- | --- |"
        for name, path in names.items():
            yield f"| [`{name}`][{path}] | {_first_sentence(path)} |"
        yield ""


def _objects(names: dict[str, str], module: str) -> Iterator[str]:
    for name, path in names.items():
        yield f"::: {path}"
        if path.rpartition(".")[0] != module:  # it is called as the room has it, not where it lies
            yield f"    options: {{heading: {name}, toc_label: {name}}}"
        yield ""


def _names(module: str) -> list[tuple[str, str]]:
    """Returns (name, path) of what a module exports; without `__all__`, what has examples."""
    exports = _all(_file(module))
    if exports:
        origins = _origins(_file(module))
        known = origins.keys() | _defined(_file(module))
        # a function beside a file of its name is found by where it is defined
        hidden = {name for name in origins if _file(module).with_name(f"{name}.py").exists()}
        places = {name: origins[name] if name in hidden else module for name in known}
        return [(name, f"{places[name]}.{name}") for name in exports if name in known]
    folder = _file(module).parent
    return [
        (node.name, f"{module}.{inner}.{node.name}")
        for path in sorted(folder.rglob("[!_]*.py"))
        for inner in [".".join(path.relative_to(folder).with_suffix("").parts)]
        for node in _nodes(path)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ">>>" in (ast.get_docstring(node) or "")
    ]


def _group(module: str, name: str, path: str) -> str:
    """Returns the folder of a room in which something is defined, or nothing."""
    where = _origins(_file(module)).get(name, path.rpartition(".")[0])
    inner = where.removeprefix(module).strip(".").split(".")
    return inner[0] if (_file(module).parent / inner[0]).is_dir() else ""


def _first_sentence(path: str) -> str:
    """Returns what the docstring of an object begins with, followed to where it is defined."""
    module, _, name = path.rpartition(".")
    origin = _origins(_file(module)).get(name)
    if origin:
        return _first_sentence(f"{origin}.{name}")
    for node in _nodes(_file(module)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            text = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            return text.replace("|", "\\|").replace("[", "\\[")
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return "A table by name."
    return ""


def _file(module: str) -> Path:
    path = _FOLDERS[module.partition(".")[0]].joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _all(path: Path) -> list[str]:
    for node in _nodes(path):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def _origins(path: Path) -> dict[str, str]:
    """Returns {name: module that it is imported from}."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in _nodes(path)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _defined(path: Path) -> set[str]:
    """Returns the functions, classes and tables of a module."""
    nodes = _nodes(path)
    tables = {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)}
    return tables | {
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def _nodes(path: Path) -> list[ast.stmt]:
    return _parsed(path, path.stat().st_mtime_ns).body


@functools.cache
def _parsed(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_text())


def _first_paragraph(path: Path) -> str:
    docstring = ast.get_docstring(_parsed(path, path.stat().st_mtime_ns)) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


_INDEX = """# API reference

What may be imported, made of the docstrings. Names that these pages have stay where they are from
one minor version to the next, as [Parts of your own](../extending.md#imports) says;
whatever else there is, is how fljax is built, and may move.
"""
