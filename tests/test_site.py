"""The site has all pages: docs/ is in its menu, the menu leads somewhere, no room is left out."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from site_pages import (
    MADE,
    PAGES,
    ROOT,
    api,
    configs,
    gallery,
    generators,
    lessons,
    names,
    outside,
    pages,
    promises,
)

import fljax

WRITTEN = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}


def menu() -> list[str]:
    """Returns the pages that mkdocs.yml lists, read as text: the suite has no YAML."""
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    return re.findall(r"([\w/]+\.md)$", nav, re.MULTILINE)


def test_the_menu_has_every_page_once():
    assert sorted(menu()) == sorted({*menu()})
    assert {*menu()} == WRITTEN | MADE
    assert not WRITTEN & MADE


def test_every_room_has_a_page_or_is_internal():
    folders = {path.parent.name for path in Path(fljax.__file__).parent.glob("*/__init__.py")}
    shown = {module.split(".")[1] for room in api.ROOMS.values() for module in room.modules[:1]
             if module.startswith("fljax.")}  # fmt: skip
    assert folders == shown | {*api.INTERNAL}


@pytest.mark.parametrize("room", api.ROOMS)
def test_pages_of_the_reference_have_what_exists(room):
    names = api.exported(room)
    assert names
    for name, path in names.items():
        module, _, own = path.rpartition(".")
        assert own == name and hasattr(importlib.import_module(module), name), path


def test_pages_of_the_reference_have_what_rooms_export():
    for room, functions in (("data", "from_arrays"), ("robustness", "krum"), ("index", "simulate")):
        assert functions in api.exported(room)
        assert re.search(rf"^::: [\w.]+\.{functions}$", PAGES[f"api/{room}.md"], re.MULTILINE)


def test_tests_that_promises_name_exist():
    named = re.findall(r"`(tests/[\w/.]+)`", promises.invariants())
    assert len(named) > 100
    assert not [path for path in named if not (ROOT / path).exists()]
    shown = promises.page()
    assert not [path for path in (ROOT / "tests").rglob("test_*.py") if path.name not in shown]


def test_every_config_of_ours_has_its_command_and_pictures():
    page = configs.page()
    for path in (ROOT / "configs").glob("*.py"):
        assert re.search(rf"^fljax \w+ {path.stem} --workdir=", page, re.MULTILINE), path
    named = [picture for pictures in configs.PICTURES.values() for picture in pictures]
    assert named and all((ROOT / "docs" / picture).exists() for picture in named)


def test_blocks_of_code_are_left_alone_and_other_links_turned():
    text = "`tests/toy.py` [a](../README.md#b)\n\n```bash\nls `tests/toy.py`\n```\n[c](data.md)\n"
    assert outside.rewritten(text, "concepts/plan.md") == text.replace(
        "`tests/toy.py` [", "[`tests/toy.py`](../source/tests/toy.py.md) ["
    )
    moved = outside.rewritten("[a](../README.md#b) [c](data.md) [d](https://e.org)", "data.md")
    assert moved == "[a](overview.md#b) [c](data.md) [d](https://e.org)"


def test_pages_of_other_simulators_name_those_of_our_table():
    for page in (ROOT / "docs/coming_from").glob("*.md"):
        text = page.read_text()
        assert names.filled(text).count("| mind |") == text.count("<!-- names: ") == 1
    with pytest.raises(ValueError, match="known of 'Flowers'; of .*Flower"):
        names.table("Flowers")


@pytest.mark.parametrize("page", lessons.others(), ids=lambda page: page.stem)
def test_pages_that_run_can_be_read_and_say_what_they_print(page):
    text = page.read_text()
    cells = pages.cells(text)
    for cell in cells:
        compile(cell.code, str(page), "exec")
    assert any(cell.output for cell in cells) and not pages.unproven(text)


def test_the_gallery_shows_pictures_that_its_code_names():
    page = gallery.PAGE.read_text()
    assert len(gallery.shown(page)) > 5
    compile(gallery.code(page), str(gallery.PAGE), "exec")
    folders = {Path(name).parts[0].removesuffix(".png") for name in gallery.shown(page)}
    assert all(f'"{folder}' in gallery.code(page) for folder in folders)


@pytest.mark.parametrize("module", [name for _, name, _ in pkgutil.iter_modules(generators.__path__)
                                    if name != "docstrings"])  # fmt: skip
def test_examples_run(module):
    module = importlib.import_module(f"generators.{module}")
    assert doctest.testmod(module).failed == 0
