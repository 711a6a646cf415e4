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
# Headings and docstrings begin with a noun or a verb.
QUESTION = r"(?:What|How|Whether|Where|When|Why|Who)\b"
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


# Scripts that are callers of a command.
CALLERS = {name: name for name in console.COMMANDS} | {"simulate": "run"}


def called_lines() -> list[list[str]]:
    """Returns the words of every call of the console command, or of a script, in the pages."""
    lines = (
        shlex.split(line, comments=True)
        for page in LINKING
        for _, code in blocks(page, "bash")
        for line in code.replace("\\\n", " ").splitlines()
        if line.startswith(("fljax", "python scripts/"))
    )
    return [words[1:] if words[0] == "python" else words for words in lines]


@pytest.mark.parametrize("words", called_lines(), ids=" ".join)
def test_commands_name_flags_keys_and_configurations_that_exist(words):
    program, *rest = words
    if program == "fljax":
        name, *rest = rest or ["--help"]
    else:
        name = CALLERS.get(Path(program).stem)
    if name is None:  # a script with flags of its own
        source = (ROOT / program).read_text()
        assert all(f'"{flag}"' in source for flag in flags_of(rest))
        return
    assert name in (*console.COMMANDS, "--help", "--version", "help")
    if name not in console.COMMANDS:
        return
    with consoles.flags_as_they_were():
        importlib.import_module(console.COMMANDS[name].module).define()
        defined = {flag.name for flag in commands.own_flags()} | {"help"}
        # the reader has files of his own, which are not here; ours are found by their names
        rest = [re.sub(r"(configs/)?([\w/]+)\.py\b", own_or_ours, word) for word in rest]
        if "config" in defined:
            _, *rest = arguments.with_config([program, *rest])
    assert {flag for flag in flags_of(rest) if not flag.startswith("config.")} <= defined
    config.check_overrides(rest, config.default_config())
    if name == "run" and "--config_help" not in rest:
        path = next(flag for flag in rest if flag.startswith("--config=")).partition("=")[2]
        keys = (flag.removeprefix("--config.") for flag in rest if flag.startswith("--config."))
        overrides = dict(key.split("=", 1) for key in keys)
        values = {key: FIELDS[key].kind(value) for key, value in overrides.items()}
        config.resolve(config.load_config(path, values))


def flags_of(words):
    return {word.lstrip("-").partition("=")[0] for word in words if word.startswith("-")}


def own_or_ours(path):
    return path[2] if path[1] else "quickstart"


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


def test_pages_have_no_marks_of_a_merge():
    marked = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert [page.name for page in LINKING if marked.search(page.read_text())] == []


def test_no_heading_is_a_question():
    pages = [*LINKING, *(ROOT / name for name in ("BENCHMARKS.md", "CONTRIBUTING.md"))]
    for page in pages:
        asked = re.findall(rf"^#+ {QUESTION} .*", outside_blocks(page), re.M)
        assert asked == [], page.name
    written = re.compile(rf'(?:Heading\(f?|^_[A-Z]+ = )"{QUESTION}[^"]*"', re.M)
    for path in (ROOT / "fljax").rglob("*.py"):
        assert written.findall(path.read_text()) == [], path


def test_both_pages_show_the_same_end_of_the_quickstart():
    ends = re.compile(
        r"^(?:federated|centralized|local_only|best by val|target [.\d]+)\b.*", re.MULTILINE
    )
    readme, start = (
        ends.findall((ROOT / page).read_text())
        for page in ("README.md", "docs/start/five_minutes.md")
    )
    assert readme == start and len(start) == 5


def test_every_module_begins_with_a_sentence_and_no_docstring_with_a_question():
    for folder in ("fljax", "kernels", "scripts", "configs", "docs", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            first = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
            assert folder == "tests" or first.endswith((".", ":")), f"{path}: {first!r}"
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    said = ast.get_docstring(node) or ""
                    assert not re.match(QUESTION, said), f"{path}: {node}"


def test_the_page_of_hostile_clients_names_all_attacks_and_rules():
    page = (ROOT / "docs/robustness.md").read_text()
    for name in (*names.AGGREGATORS, *names.ATTACKS):
        assert re.search(rf'[`"]{name}[`"(]', page), f"{name} stands in no table"
