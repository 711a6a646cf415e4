"""Every key is explained, and a configuration on the command line can be asked and unset."""

import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from fljax.config import ConfigError, reference, resolve
from fljax.config.command_line import define_config
from fljax.config.schema import FIELDS
from fljax.core.contradictions import ONLY_WITH
from fljax.core.settings import CALL, GROUPS, OPTIONS, affecting
from fljax.core.values import FILES, RECORD, RESULTS, SPEED, Field

ROOT = Path(__file__).parents[2]
KEYS = {name: field for name, field in FIELDS.items() if isinstance(field, Field)}
KEYS |= {
    f"{group}.{name}": field
    for group in ("wandb", "mlflow")
    for name, field in FIELDS[group].items()
}

AFFECTED = (RESULTS, RECORD, SPEED, FILES)


def test_every_option_says_in_a_sentence_what_it_does_and_affects():
    for name, field in {**KEYS, **CALL}.items():
        assert field.meaning.endswith(".") and field.meaning[0].isupper(), name
        assert field.affects in AFFECTED, name
        assert field.optional or field.default is not None, name
    assert sum(len(affecting(kind)) for kind in AFFECTED) == len(FIELDS) + len(CALL)
    assert set(ONLY_WITH) <= set(OPTIONS)


def test_the_page_is_that_of_the_table():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.page()


def test_the_help_explains_every_key_by_group():
    text = reference.help_text()
    assert [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "] == [
        *GROUPS
    ]
    assert all(f"\n  {key} = " in text for key in KEYS)
    assert max(map(len, text.splitlines())) <= 100


def test_commands_define_the_flags_of_a_configuration_in_one_way():
    paths = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "fljax/commands").glob("*.py")]
    assert not [path.name for path in paths if "DEFINE_config" in path.read_text()]


def test_a_script_shows_the_help_before_all_else():
    command = [sys.executable, "scripts/sweep.py", "--config_help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == reference.help_text() + "\n"


def parsed(path, *arguments):
    """Returns the configuration that a script's flags make of arguments."""
    argv = ["script", f"--config={path}", *arguments]
    values = flags.FlagValues()
    holder = define_config(values, argv)
    values(argv)
    return holder.value


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "from fljax.config import default_config\n\n\ndef get_config():\n"
        "    config = default_config()\n"
        "    config.client_lr, config.local_steps, config.calibrate = 0.5, 3, True\n"
        "    config.data_dir, config.wandb.group = 'here', 'there'\n"
        "    config.model_options.layers = 2\n"
        "    return config\n"
    )
    return path


def test_what_a_config_file_sets_can_be_unset(config_file):
    keys = ("client_lr", "local_steps", "calibrate", "data_dir", "model_options.layers")
    found = resolve(
        parsed(config_file, *(f"--config.{key}=None" for key in (*keys, "wandb.group")))
    )
    assert (found.client_lr, found.local_steps, found.local_epochs) == (0.1, None, 1)
    assert (found.calibrate, found.data_dir, found.wandb.group) == (None, None, None)
    assert found.model_options.to_dict() == {"layers": None}
    given = ("--config.calibrate=None", "--config.client_lr=None", "--config.client_lr=0.25")
    assert parsed(config_file, *given).client_lr == 0.25
    assert parsed(config_file, "--noconfig.calibrate", "--config.seed=3").seed == 3


@pytest.mark.parametrize("key", KEYS)
def test_none_unsets_a_key_or_is_refused(config_file, key):
    if KEYS[key].kind is dict:
        with pytest.raises(flags.IllegalFlagValueError, match=f"{key}=None"):
            parsed(config_file, f"--config.{key}=None")
        return
    config = parsed(config_file, f"--config.{key}=None")
    if KEYS[key].optional:
        resolve(config)
        return
    with pytest.raises(ConfigError, match=f"{key} = None"):
        resolve(config)
