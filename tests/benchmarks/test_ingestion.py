"""The benchmark of reading tables, small."""

from __future__ import annotations

import json

import pytest

from fljax.benchmarks import ingestion

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("format", ["parquet", "sqlite"])
def test_figures_of_a_small_table(format, tmp_path, capsys):
    table = tmp_path / f"table.{format}"
    write = ingestion.write_table if format == "parquet" else ingestion.write_database
    write(table, clients=20, rows=300)
    for _ in ("read", "open"):
        ingestion.figures(table, tmp_path / "cache")
        found = json.loads(capsys.readouterr().out)
        assert (found["clients"], found["rows"]) == (20, 300)
        assert found["cache_bytes"] > 300 * (4 * ingestion.FEATURES + 4)
    dataset = ingestion.read(table, tmp_path / "cache")
    assert dataset.client_ids[0] == "user-0000000"
    assert (dataset.num_classes, dataset.spec["x"].shape) == (2, (ingestion.FEATURES,))
