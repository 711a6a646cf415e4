"""README and docs say what is true: their Python runs, their commands and paths exist.

Every block that is fenced as `python` runs, the blocks of a page one after another in one
namespace, in an empty directory. Whatever is not to run is fenced as `text` or `bash`.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import consoles
import jax
import pytest
from site_pages import DRAWN, MADE

from fljax import commands, config
from fljax.commands import arguments, console
from fljax.config.schema import FIELDS
from fljax.robustness import names

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_PYTHON = [page for page in PAGES if "```python\n" in page.read_text()]


def blocks(page: Path, language: str):
    """Yields (lines before it, code) of every fenced block of a language."""
    text = page.read_text()
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start(1)), match[1]


def outside_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
@pytest.mark.usefixtures("quick_compilation", "weights_as_written")
def test_python_runs_as_printed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    device, *_ = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda *_: [device])  # as readers have, who set no number
    namespace = {"__name__": page.stem}
    for line, code in blocks(page, "python"):
        # the empty lines before it let a traceback show the page's own line numbers
        program = compile("\n" * line + code, str(page), "exec", dont_inherit=True)
        exec(program, namespace)
    if page.name == "README.md":
        assert {path.name for path in Path("plots").iterdir()} == {
            "loss.png",
            "accuracy.png",
            "bytes.png",
        }


def script_lines() -> list[list[str]]:
    """Returns the arguments of every call of a script in the pages."""
    lines = (
        line
        for page in PAGES
        for _, code in blocks(page, "bash")
        for line in code.replace("\\\n", " ").splitlines()
    )
    return [shlex.split(line)[1:] for line in lines if line.startswith("python scripts/")]


@pytest.mark.parametrize("command", script_lines(), ids=" ".join)
def test_commands_name_flags_and_keys_that_exist(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    script, *arguments = command
    source = "".join(map(Path.read_text, (Path(script), *Path("fljax/commands").glob("*.py"))))
    for argument in arguments:
        flag = argument.removeprefix("--").partition("=")[0]
        assert flag.startswith("config.") or f'"{flag}"' in source
    if "simulate" in script:
        config.check_overrides(arguments)
        path = next(flag for flag in arguments if flag.startswith("--config=")).partition("=")[2]
        overrides = dict(
            flag.removeprefix("--config.").split("=", 1)
            for flag in arguments
            if flag.startswith("--config.")
        )
        values = {key: FIELDS[key].kind(value) for key, value in overrides.items()}
        config.resolve(config.load_config(path, values))


def console_lines() -> list[list[str]]:
    """Returns the words of every call of the console command in the pages."""
    lines = (
        line
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for _, code in blocks(page, "bash")
        for line in code.replace("\\\n", " ").splitlines()
    )
    split = (shlex.split(line, comments=True) for line in lines if line.startswith("fljax"))
    return [words[1:] for words in split if words[0] == "fljax"]


@pytest.mark.parametrize("words", console_lines(), ids=" ".join)
def test_console_lines_name_what_exists(words):
    name, *rest = words or ["--help"]
    assert name in (*console.COMMANDS, "--help", "--version", "help")
    if name not in console.COMMANDS:
        return
    with consoles.flags_as_they_were():
        importlib.import_module(console.COMMANDS[name].module).define()
        defined = {flag.name for flag in commands.own_flags()} | {"help"}
        # the reader has files of his own, which are not here
        rest = [re.sub(r"[\w/]+\.py$", "quickstart", word) for word in rest]
        if "config" in defined:
            rest = arguments.with_config(["fljax", *rest])
    given = {word.lstrip("-").partition("=")[0] for word in rest if word.startswith("-")}
    assert {flag for flag in given if not flag.startswith("config.")} <= defined
    config.check_overrides(rest, config.default_config())


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = outside_blocks(page)
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text):
        place = (page.parent / target).resolve()
        made = {ROOT / "docs" / name for name in MADE | DRAWN}
        assert place.exists() or place in made, f"{page.name} links to {target}"
    paths = r"`((?:fljax|kernels|scripts|configs|tests|docs)/[\w/.]+\.(?:py|md))`"
    for path in re.findall(paths, text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_module_begins_with_a_sentence():
    for folder in ("fljax", "kernels", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            first = " ".join(docstring.partition("\n\n")[0].split())
            assert first.endswith((".", ":")), f"{path}: {first!r} is no sentence"


def test_the_page_of_hostile_clients_names_all_attacks_and_rules():
    page = (ROOT / "docs/robustness.md").read_text()
    for name in (*names.AGGREGATORS, *names.ATTACKS):
        assert re.search(rf'[`"]{name}[`"(]', page), f"{name} stands in no table"
