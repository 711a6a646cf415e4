"""The benchmark of compression: every kernel has its rows, which count the bytes they move."""

import json

import jax
import pytest

from fljax.benchmarks.kernels import bandwidth, quantization

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_rows_count_arguments_and_results(tmp_path, monkeypatch, capsys):
    for module in (bandwidth, quantization):
        monkeypatch.setattr(module, "milliseconds", lambda function, *args, clients: 2.0)
    path = tmp_path / "kernels.json"
    quantization.main([f"--out={path}", "--sizes", "100", "--clients", "3"])
    result = json.loads(path.read_text())
    rows, (copy,) = result["rows"], result["copies"]
    printed = capsys.readouterr().out
    rate = {(row["kernel"], row["form"]): row["gigabytes_per_second"] for row in rows}
    moved = {  # bytes of a vector of 100, and of what becomes of it
        ("random words", "hash"): 400,
        ("QSGD, 4 bits", "trip"): 800,
        ("QSGD, 4 bits", "encode"): 400 + 50 + 4,
        ("range, 4 bits", "decode"): 50 + 8 + 400,
        ("TernGrad", "encode"): 400 + 20 + 4,
        ("sign", "encode"): 400 + 13 + 4,
        ("natural", "encode"): 400 + 100 + 13,
        ("packing, 5 bits", "unpack"): 63 + 100,
        ("rotation of 128", "products"): 1024,
    }
    for name, number in moved.items():
        assert rate[name] == pytest.approx(1e-6 * number * 3 * jax.local_device_count() / 2)
    assert copy["gigabytes_per_second"] == pytest.approx(rate["QSGD, 4 bits", "trip"])
    for row in rows:
        share = row["gigabytes_per_second"] / copy["gigabytes_per_second"]
        assert row["share_of_copying"] == pytest.approx(share)
        assert f"| {row['kernel']} | {row['form']} | 100 | 3 | 0.667 |" in printed


def test_the_better_of_two_copies_counts(monkeypatch):
    rates = iter([10.0, 20.0])  # a processor may be slower at times
    monkeypatch.setattr(bandwidth, "copy_rate", lambda d, clients: next(rates))
    result = bandwidth.run(lambda d, clients: [{"gigabytes_per_second": 5.0}], [7], [0])
    assert result["rows"][0]["share_of_copying"] == 0.25
