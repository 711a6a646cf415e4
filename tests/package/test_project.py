"""pyproject.toml says what an installation holds; what else says so agrees with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import fljax
from fljax.core.optional import PARTS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# What these bring is imported by others: by JAX, by those who develop fljax.
NOT_OURS = {"cuda12", "cuda13", "tpu", "test", "docs"}


def packages(requirements: list[str]) -> set[str]:
    """Returns the names of what a list of requirements brings itself."""
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}
    return {name.replace("_", "-").lower() for name in names} - {"fljax"}


@pytest.mark.parametrize("module", PARTS)
def test_what_an_error_recommends_brings_the_package(module):
    package, extra, _ = PARTS[module]
    brought = packages(EXTRAS[extra] if extra else PROJECT["dependencies"])
    assert package.replace("_", "-") in brought


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - NOT_OURS))
def test_every_extra_has_its_line_in_the_table(extra):
    """It may bring what its packages need besides; or it is made of other extras alone."""
    known = {part.package for part in PARTS.values() if part.extra == extra}
    assert known <= packages(EXTRAS[extra])
    assert known or not packages(EXTRAS[extra])


def test_extras_name_extras_that_exist():
    named = re.findall(r"fljax\[([\w,]+)\]", str(EXTRAS))
    assert {name for names in named for name in names.split(",")} <= set(EXTRAS)


def test_one_version_stands_everywhere():
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == fljax.__version__
    said = re.findall(r"\(version (.*?)\)", (ROOT / "README.md").read_text())
    assert said == [fljax.__version__]
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[:1] in ([], [fljax.__version__])  # the newest comes first


def test_pythons_that_are_promised_are_those_of_the_requirement():
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert named == ["3.11", "3.12", "3.13"]
