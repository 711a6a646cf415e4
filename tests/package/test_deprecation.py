"""Deprecated names work with a warning that says the new one, and end in time."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from absl import flags

import fljax
from fljax import config
from fljax.config.command_line import define_config
from fljax.core import deprecation
from fljax.core.deprecation import DEPRECATED, Deprecated, takes_old_arguments

SOON = {
    "key rounds": Deprecated("num_rounds", since="0.2", ends="0.3"),
    "argument trained.rounds": Deprecated("num_rounds", since="0.2", ends="0.3"),
}
ROOT = Path(__file__).parents[2]
SAYS = "'rounds' is deprecated since version 0.2 and ends with 0.3: write 'num_rounds' instead"


@pytest.fixture
def renamed(monkeypatch):
    for what, new in SOON.items():
        monkeypatch.setitem(DEPRECATED, what, new)


def numbers(version: str) -> tuple[int, int]:
    """Returns the major and the minor number of a version."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


@pytest.mark.parametrize("what", DEPRECATED)
def test_what_is_deprecated_ends_in_time(what):
    _, since, ends = DEPRECATED[what]
    assert numbers(ends) > numbers(since), f"{what} needs a minor version in which it warns"
    assert numbers(fljax.__version__) < numbers(ends), f"{what} ends with {ends}: remove it"


@pytest.mark.parametrize("extra", [what[6:] for what in DEPRECATED if what.startswith("extra ")])
def test_an_extra_that_goes_is_another_one(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    new = DEPRECATED[f"extra {extra}"].instead
    assert project["optional-dependencies"][extra] == [f"fljax[{new}]"]


def test_a_renamed_key_sets_the_new_one_wherever_it_is_written(renamed, tmp_path):
    file = tmp_path / "old.py"
    file.write_text(
        "from fljax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.rounds = 7\n"
        "    return config\n"
    )
    with pytest.warns(FutureWarning, match=SAYS):
        assert config.load_config(file).num_rounds == 7
    with pytest.warns(FutureWarning, match=SAYS):
        assert config.load_config(ROOT / "configs/quickstart.py", {"rounds": 8}).num_rounds == 8
    with pytest.warns(FutureWarning, match=SAYS):
        assert config.resolve({"rounds": 9}).num_rounds == 9
    with pytest.warns(FutureWarning, match=SAYS):
        assert config.default_config().rounds == config.default_config().num_rounds


def test_a_renamed_key_is_set_by_a_command_line(renamed):
    argv = ["fljax", f"--config={ROOT}/configs/quickstart.py", "--config.rounds=5"]
    given = flags.FlagValues()
    flag = define_config(given, argv)
    with pytest.warns(FutureWarning, match=SAYS):
        config.check_overrides(argv)
        given(argv)
    assert given[flag.name].value.num_rounds == 5


def test_a_key_that_is_not_deprecated_is_still_refused(renamed):
    with pytest.raises(AttributeError, match="Did you mean 'num_rounds'"):
        config.default_config().num_round = 5


def test_a_renamed_argument_is_passed_on(renamed):
    @takes_old_arguments
    def trained(num_rounds):
        return num_rounds

    with pytest.warns(FutureWarning, match="'trained.rounds' is deprecated") as said:
        assert trained(rounds=3) == 3
    assert said[0].filename == __file__  # where it was written, not where it is passed on
    assert trained(num_rounds=4) == trained(4) == 4
    with (
        pytest.warns(FutureWarning),
        pytest.raises(TypeError, match="'rounds' is 'num_rounds' now"),
    ):
        trained(rounds=3, num_rounds=3)


def test_warnings_name_the_line_of_the_caller(renamed):
    def old():
        deprecation.warn("key rounds")

    with pytest.warns(FutureWarning, match=SAYS) as said:
        old()
    assert said[0].filename == __file__
