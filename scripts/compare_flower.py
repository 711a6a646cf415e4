"""Trains exported Flower apps on this machine, and compares them with their simulations.

    python scripts/compare_flower.py --workdir=runs/compared --case=fedavg --case=compressed

For an environment with both fljax and flwr (`pip install fljax 'flwr>=1.41'`). Of each case a
simulation of three rounds runs, its app is written, and a SuperLink and two SuperNodes train it on
the loopback interface. A line says how far the two models are apart, and whether the bytes that
clients sent are those that the simulation counted. All processes are ended, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

import fljax
from fljax.core.trees import leaf_paths
from fljax.export.flower.app import write_app

ROUNDS, NODES, HOST = 3, 2, "127.0.0.1"
BASE = {
    "dataset": "digits", "partition": "dirichlet", "alpha": 0.3, "num_clients": 6,
    "model": "mlp", "model_options": {"hidden": (32,)}, "clients_per_round": 4,
    "num_rounds": ROUNDS, "local_epochs": 2, "batch_size": 10, "client_lr": 0.1, "eval_every": 0,
}  # fmt: skip
CODE = {"uplink": "top_k(0.05), qsgd(8)", "uplink_memory": "error_feedback"}
ADAM = {"algorithm": "fedopt", "server_optimizer": "adam", "server_lr": 0.01}
MEDIAN = {"aggregator": "median", "weighting": "uniform"}
# {name: (what differs from BASE, the data of the nodes)}
CASES = {
    "fedavg": ({}, "source"),
    "files": ({}, "files"),
    "compressed": (CODE, "files"),
    "fedadam": (ADAM, "source"),
    "compressed_fedadam": (CODE | ADAM, "files"),
    "scaffold": ({"algorithm": "scaffold"}, "files"),
    "mime": ({"algorithm": "mime"}, "source"),
    "median": (MEDIAN, "files"),
}
# Nothing leaves the machine: no telemetry, no question for newer versions.
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}

_WORKDIR = flags.DEFINE_string("workdir", None, "New directory for runs, apps and logs.")
_CASES = flags.DEFINE_multi_enum("case", ["fedavg", "compressed_fedadam"], list(CASES), "Cases.")
_SECONDS = flags.DEFINE_float("timeout", 300.0, "Seconds that the rounds of a case may take.")


def main(argv):
    del argv
    # so that what was started is ended as well
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    workdir = Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    worst = 0.0
    for name in _CASES.value:
        changes, data = CASES[name]
        begin = time.perf_counter()
        gap, bytes_alike = compare(BASE | changes, data, workdir / name)
        seconds = time.perf_counter() - begin
        told = "bytes alike" if bytes_alike else "BYTES DIFFER"
        print(f"{name:<20} largest difference {gap:.1e}, {told}, {seconds:.0f} s", flush=True)
        worst = max(worst, gap if bytes_alike else np.inf)
    return 0 if worst <= 1e-5 else 1


def compare(config: dict, data: str, folder: Path) -> tuple[float, bool]:
    """Returns (largest difference of a parameter, whether bytes are alike) of a case."""
    simulated, _ = fljax.run_config(config, folder / "run")
    exported = write_app(folder / "run", folder / "app", data=data)
    deployed = folder / "deployed"
    with federation(folder, data) as (bins, environment):
        override = f"workdir='{deployed}' num-server-rounds={ROUNDS} min-nodes={NODES}"
        command = [bins / "flwr", "run", exported, "local", "--stream", "--run-config", override]
        with (folder / "flwr.log").open("wb") as log:
            subprocess.run(
                command, env=environment, stdout=log, stderr=log, timeout=_SECONDS.value, check=True
            )
    (found,) = deployed.iterdir()
    ours, theirs = simulated.variables.params, fljax.load_model(found).params
    assert leaf_paths(ours) == leaf_paths(theirs)
    gap = max(
        float(np.abs(np.asarray(a) - b).max())
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    )
    records = [json.loads(line) for line in (found / "metrics.jsonl").read_text().splitlines()]
    sent = [record["comm/uplink_bytes"] for record in records]
    return gap, sent == simulated.curves["comm/uplink_bytes"].tolist()


@contextlib.contextmanager
def federation(folder: Path, data: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """Runs a SuperLink and two SuperNodes; yields (where commands are, their environment)."""
    bins = Path(sys.executable).parent
    path = f"{bins}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | QUIET | {"FLWR_HOME": str(folder / "home"), "PATH": path}
    server, *ports = _free_ports(1 + NODES)
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "{HOST}:{server}"\n'
        "insecure = true\n"
    )
    link = [
        bins / "flower-superlink", "--insecure", "--host", HOST, "--port", f"{server}",
        "--disable-runtime-dependency-installation",
    ]  # fmt: skip
    commands = {"superlink": link}
    for number, port in enumerate(ports):
        own = f"partition-id={number} num-partitions={NODES}"
        if data == "files":
            own = f'clients="{_own_files(folder, number)}"'
        commands[f"supernode_{number}"] = [
            bins / "flower-supernode", "--insecure", "--superlink", f"{HOST}:{server}",
            "--host", HOST, "--port", f"{port}", "--node-config", own,
        ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            stack.enter_context(_running(command, environment, folder / f"{name}.log"))
            if name == "superlink":
                _wait_for(server)
        yield bins, environment


def _own_files(folder: Path, number: int) -> Path:
    """Moves the files of a node's clients to a folder of their own."""
    own = folder / f"node_{number}"
    own.mkdir()
    for path in sorted((folder / "app" / "clients").glob("client_*.npz")):
        if int(path.stem.removeprefix("client_")) % NODES == number:
            path.rename(own / path.name)
    return own


@contextlib.contextmanager
def _running(command: list, environment: dict[str, str], log: Path) -> Iterator[None]:
    """Runs a process and whatever it starts, in a group of their own that ends with the context."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(port: int) -> None:
    """Waits until somebody listens at a port.

    Raises:
      TimeoutError: If nobody does within a minute.
    """
    for _ in range(120):
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.5)
    raise TimeoutError(f"Nothing listens on {HOST}:{port} after a minute.")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    app.run(main)
