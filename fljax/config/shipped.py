"""Finds configurations of ours by name, whether they lie in a checkout or in an installed wheel."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fljax.core.names import nearest
from fljax.core.values import shown


def folder() -> Path:
    """Returns the folder of the configurations that come with fljax.

    Example:
      >>> (folder() / "quickstart.py").is_file()
      True
    """
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> tuple[str, ...]:
    """Returns the names of the configurations of ours, sorted.

    Example:
      >>> "quickstart" in names()
      True
    """
    return tuple(sorted(path.stem for path in folder().glob("[!_]*.py")))


def located(text: str) -> str:
    """Returns the path of a configuration: of one's own file as it is, of ours by its name.

    Args:
      text: A path or a name, with or without ":" and what `get_config` is called with.

    Returns:
      The path of a file that exists, with the same ":" and text behind it.

    Raises:
      FileNotFoundError: If there is no such file, and none of ours of this name.

    Example:
      >>> Path(located("drift:cifar10")).name
      'drift.py:cifar10'
    """
    if os.path.isfile(text):
        return text
    file, colon, argument = text.partition(":")
    if os.path.isfile(file):
        return text
    if file in names():
        return f"{folder() / file}.py{colon}{argument}"
    near = f"{file}.py" if os.path.isfile(f"{file}.py") else nearest(Path(file).stem, names())
    hint = f"Did you mean {near!r}? " if near else ""
    raise FileNotFoundError(
        f"There is no config file {shown(file)}, and none of ours has this name. {hint}"
        f"`fljax configs` lists ours, which lie in {folder()}."
    )


def file_and_text(named: str) -> tuple[str, str]:
    """Returns the file of a configuration, and the text behind its colon, "" where none is.

    Args:
      named: A path or a name, as of `located`.

    Example:
      >>> file, text = file_and_text("drift:cifar10")
      >>> Path(file).name, text
      ('drift.py', 'cifar10')
    """
    path = located(named)
    file, _, text = (path, "", "") if os.path.isfile(path) else path.partition(":")
    return file, text


def summary(name: str) -> str:
    """Returns the first sentence of a configuration of ours.

    Args:
      name: One of `names`.

    Example:
      >>> summary("quickstart")
      'A first run: handwritten digits on 100 unequal clients, with both baselines.'
    """
    return " ".join((ast.get_docstring(_parsed(name)) or "").partition("\n\n")[0].split())


def settings(name: str) -> tuple[str, ...]:
    """Returns the texts that a configuration of ours takes behind a ":", as it stands in the file.

    They are those that it checks by `fljax.config.check_setting`, and those that its docstring has
    behind its name.

    Args:
      name: One of `names`.

    Example:
      >>> settings("mnist_mcmahan_cnn"), settings("drift")
      (('iid', 'shards'), ('unlike_epochs', 'cifar10', 'tenth'))
    """
    tree = _parsed(name)
    assigned = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    checks = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "check_setting"
    )
    checked = [text for check in checks for text in _texts(check.args[1], assigned)]
    told = re.findall(rf"\b{name}(?:\.py)?:(\w+)", ast.get_docstring(tree) or "")
    return tuple(dict.fromkeys([*checked, *told]))


def _texts(node: ast.AST | None, assigned: Mapping[str, ast.AST]) -> Iterator[str]:
    """Yields the texts of a tuple, or the keys of a dict, which may have a name."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Name(id=name):
            yield from _texts(assigned[name], assigned)
        case ast.Starred(value=inner):
            yield from _texts(inner, assigned)
        case ast.Tuple(elts=parts) | ast.Dict(keys=parts):
            for part in parts:
                yield from _texts(part, assigned)


def functions(name: str) -> tuple[str, ...]:
    """Returns the functions that a configuration of ours defines, as they stand in the file.

    Args:
      name: One of `names`.

    Example:
      >>> functions("sweep_seeds")
      ('get_config', 'get_sweep')
    """
    return tuple(node.name for node in _parsed(name).body if isinstance(node, ast.FunctionDef))


def _parsed(name: str) -> ast.Module:
    return ast.parse((folder() / f"{name}.py").read_text("utf-8"))
