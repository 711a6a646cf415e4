"""The completion: what a word may become, and how bash puts it into the line."""

import importlib
import shutil
import subprocess

import consoles
import pytest

from fljax.commands import candidates, completion, tables
from fljax.config import shipped
from fljax.config.schema import FIELDS


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Returns what the last word of a line may become, in a folder with a few files."""
    (tmp_path / "mine.py").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "more").mkdir()
    monkeypatch.chdir(tmp_path)

    def words(line):
        with consoles.flags_as_they_were():
            return [found.word for found in candidates.candidates(line.split(" "))]

    return words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("stu", ["study"]),
        ("--v", ["--version"]),
        ("help au", ["audit"]),
        ("nothing ", []),
        ("run quick", ["quickstart"]),
        ("run m", ["mnist_mcmahan_cnn", "mnist_writers_cnn", "mine.py", "more/"]),
        ("run drift:", ["drift:unlike_epochs", "drift:cifar10", "drift:tenth"]),
        ("run mnist_mcmahan_cnn:", ["mnist_mcmahan_cnn:iid", "mnist_mcmahan_cnn:shards"]),
        ("run quickstart sec", []),
        ("run --resume quickst", ["quickstart"]),
        ("study --seeds 3 quickst", ["quickstart"]),
        ("run --config=quickst", ["--config=quickstart"]),
        ("run --config quickst", ["quickstart"]),
        ("run --dry", ["--dry_run"]),
        ("study --se", ["--seeds="]),
        ("audit --unit=", ["--unit=row", "--unit=client"]),
        ("audit --unit cl", ["client"]),
        ("partition --partition=pa", ["--partition=pachinko"]),
        ("partition --dataset=emn", ["--dataset=emnist"]),
        ("run --config.wandb.mo", ["--config.wandb.mode="]),
        (
            "run --config.wandb.mode=o",
            ["--config.wandb.mode=offline", "--config.wandb.mode=online"],
        ),
        ("run --config.calibrate=T", ["--config.calibrate=True"]),
        ("run --config.calibrate quickst", ["quickstart"]),
        ("run --config.algorithm scaf", ["scaffold"]),
        ("run --config.nothing=", []),
        ("run --workdir=", []),
        ("completion z", ["zsh"]),
        ("configs quickst", ["quickstart"]),
        ("report ", []),
        ("export ", ["model", "flower"]),
        ("export flower ", []),
    ],
)
def test_a_word_may_become(line, expected, words):
    assert words(line) == expected


def test_all_keys_and_all_configurations_are_offered(words):
    keys = {word.removeprefix("--config.").rstrip("=") for word in words("sweep --config.")}
    assert {key.partition(".")[0] for key in keys} == {*FIELDS}
    assert {*shipped.names()} <= {*words("study ")}


@pytest.mark.parametrize("key", tables.TABLES)
def test_names_that_are_read_are_those_of_the_tables(key):
    file, table = tables.TABLES[key]
    module = importlib.import_module("fljax." + file.removesuffix(".py").replace("/", "."))
    assert tables.names_for(key) == tuple(getattr(module, table))
    assert key in FIELDS


def test_a_table_that_has_moved_is_missed():
    with pytest.raises(LookupError, match="fljax/systems/names.py has no dict 'PLANS'"):
        tables.names_in("systems/names.py", "PLANS")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("fljax stu", ["study\tCompares."], "<study>"),
        ("fljax ", ["run\t", "sweep\t"], "<run><sweep>"),
        ("fljax run a:b", ["a:big\t", "a:bad one\t"], "<big><bad one>"),
        ("fljax run --config.x=d", ["--config.x=dir\t"], "<dir>"),
        ("fljax run --config=a:b", ["--config=a:big\t"], "<big>"),
        ("fljax run zzz", [], ""),
    ],
)
def test_bash_is_given_what_it_replaces(line, found, expected, tmp_path):
    program = tmp_path / "fljax"
    program.write_text("#!/bin/bash\n" + "".join(f"echo '{text}'\n" for text in found))
    program.chmod(0o755)
    line_of_there = line.replace("fljax", str(program), 1)
    asked = (
        completion.SCRIPTS["bash"]
        + f"COMP_LINE='{line_of_there}' COMP_POINT={len(line_of_there)}\n"
        "COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'\n"
        '_fljax 2>/dev/null; [[ ${#COMPREPLY[@]} -gt 0 ]] && printf "<%s>" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (expected, "")
