"""Measures how a large table becomes a data set: seconds, memory, resuming after a kill, rounds.

    python -c "from fljax.benchmarks import ingestion; ingestion.measure('FOLDER')"

writes a Parquet file of 1,000,000 clients and 20,000,000 rows in any order (or, with
`format="sqlite"`, FedJAX's database of as many, a row a client), and prints one JSON object a
step. Each step is a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from fljax import data
from fljax.benchmarks import population
from fljax.data.dataset import FederatedDataset
from fljax.recording import host_peak_memory_bytes

FEATURES = 8
_CHUNK = 1 << 20


def measure(
    folder: str | Path,
    clients: int = 1_000_000,
    rows: int = 20_000_000,
    kill_after: float = 20.0,
    format: str = "parquet",
) -> None:
    """Writes a table, reads it, kills another reading of it and lets it go on, times rounds.

    Args:
      folder: Where everything lies; what is there already is taken as it is.
      clients: In the table.
      rows: In the table.
      kill_after: Seconds after which the second reading is killed.
      format: "parquet" or "sqlite".
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write = {"parquet": write_table, "sqlite": write_database}[format]
    table = folder / f"{clients}.{format}"
    if not table.exists():
        write(table, clients, rows)
    print(json.dumps({"table_bytes": table.stat().st_size}), flush=True)
    for step, cache in (("read", "whole"), ("open", "whole")):
        _say(step, _in_process(table, folder / cache))
    _in_process(table, folder / "killed", kill_after)
    (building,) = (folder / "killed").glob("*.building")
    stored = json.loads((building / "spill" / "journal.json").read_bytes())["rows"]
    _say("killed", {"after_seconds": kill_after, "rows_stored": stored.get("train", 0)})
    _say("resumed", _in_process(table, folder / "killed"))
    _say("equal", {"files": _are_equal(folder / "whole", folder / "killed")})
    small = folder / f"10000.{format}"
    if not small.exists():
        write(small, 10_000, 200_000)
    _say("rounds", rounds(small, table, folder / "whole"))


def write_table(path: Path, clients: int, rows: int, seed: int = 0) -> None:
    """Writes a Parquet file: texts as ids, float32 features, labels of two kinds, in any order."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    draw = np.random.default_rng(seed)
    names = pa.array([f"user-{number:07}" for number in range(clients)])
    fields = [("user", pa.string()), *((f"x{n}", pa.float32()) for n in range(FEATURES))]
    with parquet.ParquetWriter(path, pa.schema([*fields, ("y", pa.int8())])) as file:
        for start in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - start)
            x = draw.normal(size=(FEATURES, count)).astype(np.float32)
            columns = {f"x{n}": values for n, values in enumerate(x)}
            user = names.take(pa.array(draw.integers(0, clients, count)))
            y = (x[0] + draw.normal(size=count) > 0).astype(np.int8)
            file.write_table(pa.table({"user": user, **columns, "y": y}))


def write_database(path: Path, clients: int, rows: int, seed: int = 0) -> None:
    """Writes FedJAX's SQLite database: equally many rows of each client, as `write_table` draws."""
    draw = np.random.default_rng(seed)
    count = rows // clients
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            "CREATE TABLE federated_data (client_id BLOB NOT NULL PRIMARY KEY, data BLOB NOT NULL, "
            "num_examples INTEGER NOT NULL)"
        )
        for number in range(clients):
            x = draw.normal(size=(count, FEATURES)).astype(np.float32)
            y = (x[:, 0] + draw.normal(size=count) > 0).astype(np.int8)
            packed = msgpack.packb({"x": _extension(x), "label": _extension(y)})
            row = f"user-{number:07}".encode(), zlib.compress(packed, 1), count
            database.execute("INSERT INTO federated_data VALUES (?, ?, ?)", row)


def _extension(array: np.ndarray) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def read(table: str | Path, cache_dir: str | Path) -> FederatedDataset:
    """Reads the table through the cache."""
    if Path(table).suffix == ".sqlite":
        return data.load("fedjax", path=str(table), cache_dir=str(cache_dir))
    return data.load("parquet", path=str(table), client="user", label="y", cache_dir=str(cache_dir))


def figures(table: str | Path, cache_dir: str | Path) -> None:
    """Reads the table, and prints seconds, CPU seconds and peaks of memory as JSON."""
    before, start, cpu = host_peak_memory_bytes(), time.perf_counter(), time.process_time()
    dataset = read(table, cache_dir)
    found = {
        "clients": dataset.num_clients,
        "rows": dataset.train.num_rows,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_memory_bytes": host_peak_memory_bytes(),
        "peak_memory_bytes_before": before,
        "cache_bytes": sum(f.stat().st_size for f in Path(cache_dir).rglob("*") if f.is_file()),
    }
    print(json.dumps(found))


def _in_process(table: Path, cache_dir: Path, kill_after: float | None = None) -> dict[str, Any]:
    """Returns what `figures` prints in a process of its own, which may be killed."""
    call = f"figures({str(table)!r}, {str(cache_dir)!r})"
    code = f"from fljax.benchmarks import ingestion; ingestion.{call}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return {}
    return json.loads(output)


def rounds(small: Path, large: Path, cache_dir: Path, pairs: int = 4) -> dict[str, Any]:
    """Returns [seconds, CPU seconds] of rounds of 1,000 clients of two tables, in turns."""
    taken: dict[str, list] = {"small": [], "large": []}
    for _ in range(pairs):
        for which, table in zip(taken, (small, large), strict=True):
            dataset = read(table, cache_dir)
            found = population.timed(dataset, cohort=1000, rounds=60, placement="stream", seed=0)
            taken[which].append([found["seconds_median"], found["cpu_seconds_median"]])
    return taken


def _are_equal(one: Path, other: Path) -> bool:
    """Returns whether two caches hold the same bytes."""
    sums = []
    for folder in (one, other):
        (header,) = folder.glob("*/header.json")
        sums.append(json.loads(header.read_bytes())["files"])
    return sums[0] == sums[1]


def _say(step: str, found: dict[str, Any]) -> None:
    print(json.dumps({"step": step, **found}), flush=True)
