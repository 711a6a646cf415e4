"""The console command: its table, pages, names of configurations, folders of runs, and refusals."""

import re
import subprocess
import sys
from pathlib import Path

import consoles
import pytest
from absl import flags
from written_runs import write_run

import fljax
from fljax import commands
from fljax.commands import arguments, configs, console, study
from fljax.config import shipped
from fljax.core.files import make_folder

WITH_CONFIG = [name for name, command in console.COMMANDS.items() if "CONFIG" in command.arguments]

OWN = {"run": ("resume", "dry_run"), "sweep": ("resume", "axis"), "study": ("variant", "seeds")}


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Calls the console in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: consoles.call(monkeypatch, capsys, *words)


@pytest.fixture
def call_script(monkeypatch, capsys, tmp_path):
    """Calls a command as its script does, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *words: consoles.call(monkeypatch, capsys, *words, script=name)


def test_the_page_of_the_console_tells_of_every_command(call):
    for words in ((), ("--help",), ("-h",), ("help",)):
        code, out, err = call(*words)
        assert (code, err) == (0, "")
        for name, command in console.COMMANDS.items():
            assert re.search(rf"^  {name} .*{re.escape(command.help)}$", out, re.MULTILINE)
    table = (Path(__file__).parents[2] / "docs/command_line.md").read_text()
    assert all(f"| `{name}` | " in table for name in console.COMMANDS)
    assert call("--version").out == f"fljax {fljax.__version__}\n"


@pytest.mark.parametrize("name", console.COMMANDS)
def test_the_page_of_a_command_is_its_docstring_and_all_its_flags(name, call):
    code, page, err = call(name, "--help")
    assert (code, err) == (0, "")
    assert page.startswith(f"usage: fljax {name}")
    docstring = sys.modules[console.COMMANDS[name].module].__doc__
    assert docstring.strip() in page and f"fljax {name}" in docstring
    assert max(map(len, page.splitlines())) <= 100
    listed = {
        flag: " ".join(text.split())
        for flag, text in re.findall(r"^  --(?:\[no\])?(\w+).*\n((?:      .*\n?)*)", page, re.M)
    }
    assert all(listed.values())
    assert ("config" in listed) == (name in WITH_CONFIG)
    assert {*listed} >= {*OWN.get(name, ())}
    assert call("help", name).out == page


def test_help_and_completion_come_without_jax():
    code = (
        "import sys\n"
        "from importlib import import_module\n"
        "from absl import flags\n"
        "from fljax import commands\n"
        "from fljax.commands import candidates, console, pages\n"
        "for name, command in console.COMMANDS.items():\n"
        "    module = import_module(command.module)\n"
        "    module.define()\n"
        "    assert pages.of_command(name, command, module)\n"
        "    for flag in commands.own_flags():\n"
        "        delattr(flags.FLAGS, flag.name)\n"
        "assert candidates.candidates(['run', '--config.model=m'])\n"
        "print(sorted({'jax', 'numpy', 'matplotlib'} & {*sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "unknown command: 'rnu' (did you mean 'run'?)"),
        (["help", "studdy"], "did you mean 'study'?"),
        (["run"], "fljax run needs a configuration"),
        (["run", "--config.num_rounds=3"], "fljax run needs a configuration"),
        (["run", "quikstart"], "Did you mean 'quickstart'? `fljax configs` lists ours"),
        (["run", "--config=quikstart"], "Did you mean 'quickstart'?"),
        (["run", "mine"], "Did you mean 'mine.py'?"),
        (["run", "quickstart:small"], "takes no text, and 'small' stands behind"),
        (["run", "drift:cifar11"], "unknown setting: 'cifar11' (did you mean 'cifar10'?)"),
        (["run", "quickstart", "drift"], "One configuration is needed, not 2: quickstart, drift."),
        (["run", "quickstart", "--seedz=3"], "Unknown command line flag 'seedz'"),
        (["run", "quickstart", "--config.sed=3"], "Unknown config key 'sed'. Did you mean 'seed'?"),
        (["run", "quickstart", "--config.comm_round=3"], "FedML's name; here it is called 'num_ro"),
        (["run", "quickstart", "--distributed"], "--workdir is needed"),
        (["sweep", "quickstart", "--axis=clientlr=0.1", "--workdir=x"], "client_lr"),
        (["study", "quickstart", "--share=0/2"], "flag --workdir=None"),
        (["benchmark", "softmax_100"], "Unexpected arguments: ['softmax_100']"),
        (["configs", "quickstart", "drift"], "name one"),
        (["configs", "--copy=x.py"], "name one"),
        (["configs", "mine.py"], "mine.py is a file of yours"),
        (["completion", "tcsh"], "Name one shell of bash, zsh, fish, not ['tcsh']"),
    ],
)
def test_mistakes_end_with_a_line_and_leave_nothing(words, said, call, tmp_path):
    (tmp_path / "mine.py").touch()
    code, out, err = call(*words)
    assert (code, out) == (1, "") and said in err and "Traceback" not in err
    assert len(err.splitlines()) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_errors_are_called_by_a_public_name(call, tmp_path):
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    (folder / "final.npz").write_bytes(b"PK, and no more")
    (folder.parent / "metrics.jsonl").touch()
    _, _, err = call("export", "model", "run", "out")
    assert err.startswith("ValueError: ") and "final.npz" in err


def test_a_study_leaves_a_run_as_it_is(call, tmp_path):
    run = write_run(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    code, _, err = call("study", "quickstart", "--axis=client_lr=0.1,0.2", "--workdir=run")
    assert code == 1 and "run holds a run, and no study. Give another --workdir." in err
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_scripts_are_to_be_told_where(call_script, tmp_path):
    config = f"--config={shipped.folder() / 'quickstart.py'}"
    ended = [call_script("run", config), call_script("study", config)]
    assert [(code, out, "--workdir" in err) for code, out, err in ended] == [(1, "", True)] * 2
    named = call_script("run", config, "drift", "--workdir=x")
    assert named.err.startswith("Unexpected arguments: ['drift']")
    assert not [*tmp_path.iterdir()]


def test_a_misspelt_setting_of_the_file_ends_with_one_line(call_script, tmp_path):
    file = tmp_path / "misspelt.py"
    file.write_text(
        "from fljax.config import default_config as get_config\n"
        "def get_study():\n    return {'variants': {'plain': {}}, 'refrence': 'plain'}\n"
    )
    code, _, err = call_script("study", f"--config={file}", f"--workdir={tmp_path / 'x'}")
    (line,) = err.splitlines()
    assert code == 1 and line.startswith(f"ConfigError: {file}: unknown setting")
    assert "(did you mean 'reference'?)" in line


@pytest.mark.usefixtures("quick_compilation")
def test_a_dry_run_runs_nothing(call, tmp_path):
    code, out, err = call("run", "quickstart", "--dry_run", "--config.num_rounds=50")
    assert code == 0, err
    assert "50 of 10 clients" in out and "workdir" not in err
    for word in ("clients", "local steps", "FLOPs", "memory", "execution"):
        assert re.search(rf"^{word} ", out, re.MULTILINE)
    assert not [*tmp_path.iterdir()]


def test_a_configuration_of_ours_is_found_by_name_and_ones_own_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = shipped.folder()
    assert shipped.located("quickstart") == str(ours / "quickstart.py")
    assert shipped.located("drift:cifar10") == f"{ours / 'drift.py'}:cifar10"
    (tmp_path / "quickstart.py").write_text("mine")
    (tmp_path / "odd:name.py").touch()
    for own in ("quickstart.py", "quickstart.py:text", "odd:name.py", str(ours / "drift.py")):
        assert shipped.located(own) == own
    assert fljax.load_config("mnist_mcmahan_cnn:shards").partition == "shards"


def test_every_configuration_of_ours_says_what_it_is_and_for_which_commands(call):
    listed = call("configs").out
    for name in shipped.names():
        assert re.search(rf"^{name} +\S", listed, re.MULTILINE)
        assert shipped.summary(name).endswith("."), name
        assert {*configs.purposes(name)} <= {*console.COMMANDS}
    assert configs.purposes("hospitals_heart") == ["study", "audit"]
    assert configs.purposes("quickstart") == ["run"]


def test_a_configuration_is_printed_and_copied_but_nothing_is_written_over(call, tmp_path):
    text = (shipped.folder() / "quickstart.py").read_text()
    assert call("configs", "quickstart").out == text
    assert "get_study" in call("configs", "drift:cifar10").out
    said = call("configs", "quickstart", "--copy=mine.py")
    assert said.code == 0 and "fljax run mine.py" in said.out
    assert (tmp_path / "mine.py").read_text() == text
    again = call("configs", "drift", "--copy=mine.py")
    assert again.code == 1 and "mine.py" in again.err
    assert (tmp_path / "mine.py").read_text() == text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["quickstart"], ["--config=Q"]),
        (["--config=quickstart", "--resume"], ["--config=Q", "--resume"]),
        (["--config", "quickstart"], ["--config=Q"]),
        (["--seeds", "3", "quickstart"], ["--config=Q", "--seeds", "3"]),
        (["--resume", "quickstart"], ["--config=Q", "--resume"]),
        (["--config.num_rounds", "5", "quickstart"], ["--config=Q", "--config.num_rounds", "5"]),
        (["--config.calibrate", "quickstart"], ["--config=Q", "--config.calibrate"]),
        (["--seeds=3", "--", "quickstart"], ["--config=Q", "--seeds=3"]),
        (["--seeds=3"], ["--seeds=3"]),
    ],
)
def test_the_argument_that_is_no_flag_is_the_configuration(given, expected):
    defined = flags.FlagValues()
    flags.DEFINE_integer("seeds", None, "", flag_values=defined)
    flags.DEFINE_bool("resume", False, "", flag_values=defined)
    found = arguments.with_config(["fljax", *given], defined)
    path = str(shipped.folder() / "quickstart.py")
    assert found == ["fljax", *(text.replace("Q", path) for text in expected)]


def test_a_place_is_named_by_the_configuration_or_the_run_and_is_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arguments.time, "strftime", lambda _: "now")
    assert (
        arguments.place("run", ["fljax", "--config=/x/drift.py:cifar10"])
        == "runs/drift-cifar10-now"
    )
    assert arguments.place("audit", ["fljax", "--run=runs/first/"]) == "runs/first-now"
    assert arguments.place("audit", ["fljax"]) == "runs/audit-now"
    Path("runs/audit-now").mkdir(parents=True)
    assert arguments.place("audit", ["fljax"]) == "runs/audit-now-2"


def test_processes_of_one_job_are_given_no_places_of_their_own():
    assert arguments.needs_a_place(["fljax", "--config=x.py"], {"HOME": "/"})
    assert not arguments.needs_a_place(["fljax"], {"SLURM_ARRAY_TASK_ID": "0"})
    for flag in ("--workdir=x", "-workdir", "--resume", "--share=0/2", "--process_id=1"):
        assert not arguments.needs_a_place(["fljax", flag], {})


def test_a_command_is_given_a_new_folder_and_says_so(call, monkeypatch):
    given = []

    def main(argv):
        given.append((argv, flags.FLAGS.workdir))
        if flags.FLAGS.seeds == 1:
            make_folder(Path(flags.FLAGS.workdir))
            commands.note("training")

    monkeypatch.setattr(study, "main", main)
    code, out, err = call("study", "drift:cifar10", "--seeds=1")
    ((argv, workdir),) = given
    assert (code, out, err) == (0, "", f"workdir: {workdir}\ntraining\n")
    # of a folder that nobody has made, nothing is said
    assert call("study", "drift", "--seeds=2").err == ""
    assert re.fullmatch(r"runs/drift-cifar10-\d{8}-\d{6}", workdir) and argv == ["fljax"]
    assert call("study", "drift", "--workdir=mine").err == ""
    assert given[2][1] == "mine"


def test_a_report_shows_the_command_as_it_was_typed(monkeypatch):
    typed = ["study", "drift", "--seeds=1"]
    for program in ("/venv/bin/fljax", "/src/fljax/__main__.py"):
        monkeypatch.setattr(sys, "argv", [program, *typed])
        assert commands.command_line() == ["fljax", *typed]
    monkeypatch.setattr(sys, "argv", ["scripts/study.py", "--config=x.py"])
    assert commands.command_line() == ["python", "scripts/study.py", "--config=x.py"]


def test_data_are_looked_at_from_an_empty_folder(call):
    code, out, err = call("partition", "quickstart", "--config.num_clients=12")
    assert code == 0, err
    assert re.search(r"\b12 clients", out)
