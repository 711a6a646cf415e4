"""Tutorials, as far as that is seen without running them; what runs them does what it says.

The build of the site and `make tutorials` run the pages, hold outputs against them and fail where
they differ. Here pages are read: the suite has no time to train twelve federations.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from fljax import config
from fljax.config.schema import FIELDS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
lessons, pages, runs = (
    importlib.import_module(f"generators.tutorials.{name}") for name in ("lessons", "pages", "runs")
)
sys.path.remove(str(ROOT / "docs"))

TUTORIALS = lessons.pages()
every_tutorial = pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
# what a reader of a lesson can be asked to follow
LONGEST = 180

CELLS = """Text with 0.5.

```python
x = 1 / 3
print(f"{x:.2f}")
```

```text
0.33
```

```python
x = 2
```
"""


def test_the_menu_and_the_list_have_every_tutorial():
    menu = re.findall(r"tutorials/(\w+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    listed = re.findall(r"\]\((\w+)\.md\)", (lessons.FOLDER / "index.md").read_text())
    assert menu == ["index", *listed]
    assert sorted(listed) == [page.stem for page in TUTORIALS]


@every_tutorial
def test_a_tutorial_is_a_lesson(page):
    text = page.read_text()
    found = pages.cells(text)
    assert text.startswith("# ") and text.count("\n*Aim: ") == 1
    assert "## Further reading" in text and text.count("\n") <= LONGEST
    assert sum(bool(cell.output) for cell in found) >= 2, "outputs are missing: make tutorials"
    assert any("plt.show()" in cell.code for cell in found), "it draws nothing"
    assert len(found) == text.count("```python\n")
    assert sum(bool(cell.output) for cell in found) == text.count("```text\n")


@every_tutorial
def test_figures_of_the_prose_stand_in_outputs(page):
    assert pages.unproven(page.read_text()) == []


@every_tutorial
def test_names_of_fljax_exist(page):
    tree = ast.parse("\n".join(cell.code for cell in pages.cells(page.read_text())))
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in (alias.name for alias in node.names if alias.name.startswith("fljax")):
                known[name.partition(".")[0]] = importlib.import_module(name)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("fljax"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                known[alias.asname or alias.name] = getattr(module, alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if type(known.get(node.value.id)) is type(ast):
                assert hasattr(known[node.value.id], node.attr), ast.unparse(node)


@every_tutorial
def test_commands_of_tutorials_resolve(page):
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        if program == "fljax" and arguments[:2] == ["run", "quickstart"]:
            assert set(re.findall(r"^--(\w+)(?!\w*\.)", "\n".join(arguments), re.MULTILINE)) <= {
                *("workdir", "privacy", "config")
            }
            pairs = [flag.partition("=") for flag in arguments if flag.startswith("--config.")]
            values = {key.removeprefix("--config."): value for key, _, value in pairs}
            kinds = {key: FIELDS[key].kind(value) for key, value in values.items()}
            config.resolve(config.load_config(str(ROOT / "configs/quickstart.py"), kinds))


@every_tutorial
def test_links_of_tutorials_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    ("said", "found", "difference"),
    [
        ("0.951 in 3 s", "0.957 of 3 s", "words differ"),
        ("0.951 in 3 s", "0.957 in 900 s", None),
        ("accuracy 0.951", "accuracy 0.929", "0.951 on the page, 0.929 in the run"),
        ("12 clients", "13 clients", "12 on the page, 13 in the run"),
        ("1,000 bytes", "1,010 bytes", None),
        ("0.00", "0.01", None),
        ("0.00", "0.02", "0.00 on the page, 0.02 in the run"),
        ("[1 2]", "[1 2 3]", "words differ"),
        ("saved in /tmp/a/b", "saved in /home/c", None),
        ("at 120 clients/s", "at 7 clients/s", None),
    ],
)
def test_outputs_are_compared(said, found, difference):
    assert pages.differences(pages.Cell("", 0, said, 0.02, 0, 0), found) == difference


def test_a_tolerance_is_read_from_the_page():
    text = CELLS.replace("```text", "<!-- tolerance: 0.2 -->\n```text")
    (cell, _) = pages.cells(text)
    assert cell.tolerance == 0.2 and pages.differences(cell, "0.39\n") is None
    assert pages.cells(CELLS)[0].tolerance == pages.TOLERANCE


def test_outputs_that_differ_are_written_and_others_stay():
    assert pages.with_outputs(CELLS, ["0.34\n", ""]) == CELLS
    assert pages.with_outputs(CELLS, ["0.4\n", ""]) == CELLS.replace("0.33", "0.4")
    added = pages.with_outputs(CELLS, ["0.33\n", "new\n"])
    assert added == CELLS + "\n```text\nnew\n```\n"
    assert pages.with_outputs(added, ["", "new\n"]) == added.replace("\n```text\n0.33\n```\n", "")


@pytest.mark.parametrize(
    ("prose", "missing"),
    [
        ("It is 0.33, or 33 %.", []),
        ("It is 0.34.", ["0.34"]),
        ("It costs 7 points.", ["7"]),
        ("Of 7 clients (arXiv:1910.06378) `0.99` of [it](a_0.98.md).", []),
        ("Elsewhere 1,234 were measured. <!-- elsewhere: 1,234 -->", []),
        ("Elsewhere 1,234 were measured.", ["1,234"]),
    ],
)
def test_figures_without_an_output_are_found(prose, missing):
    assert pages.unproven(CELLS.replace("Text with 0.5.", prose)) == missing


def test_a_page_that_differs_from_its_run_has_faults():
    assert lessons.faults(CELLS.replace("0.5", "0.33"), ["0.33\n", ""]) == []
    assert lessons.faults(CELLS, ["0.4\n", ""]) == [
        "line 3: 0.33 on the page, 0.4 in the run",
        "the figure 0.5 stands in no output",
    ]


def test_a_page_runs_once_in_a_process_of_its_own(tmp_path):
    page, cache = tmp_path / "small.md", tmp_path / "cache"
    page.write_text(
        CELLS + "\n```python\nimport matplotlib.pyplot as plt\nplt.plot([x])\nplt.title('A line')\n"
        "plt.show()\nx + 1\n```\n"
    )
    result = runs.run(page, cache)
    assert [output.text for output in result.outputs] == ["0.33\n", "", "3\n"]
    ((title, path),) = result.outputs[2].pictures
    assert title == "A line" and path.read_bytes().startswith(b"\x89PNG")
    page.write_text(page.read_text().replace("0.33", "0.5"))  # prose and outputs are not code
    assert runs.run(page, cache) == result
    page.write_text("```python\n1 / 0\n```\n")
    with pytest.raises(RuntimeError, match=r"(?s)small.md does not run.*line 2.*ZeroDivisionError"):
        runs.run(page, cache)


@pytest.mark.parametrize("name", ["pages"])
def test_examples_of_the_runner_run(name):
    assert doctest.testmod(importlib.import_module(f"generators.tutorials.{name}")).failed == 0
