"""Progress: lines in a log, a bar on a terminal."""

import io

import pytest

from fljax.recording import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drive(stream, rounds=4, start=0, **options):
    display = progress(rounds, start, stream=stream, **options)
    for r in range(start + 1, rounds + 1):
        record = {"round": r, "train/loss": 2.0 / r, "throughput/clients_per_second": 1234.0}
        if r == start + 2:
            record["eval/test/accuracy"] = 0.75
        display.update(r, record)
    display.close()
    return stream.getvalue()


def test_a_log_file_gets_plain_lines():
    lines = drive(io.StringIO(), line_seconds=0.0).splitlines()
    assert [line.split(",")[0] for line in lines] == [f"round {r}/4" for r in (1, 2, 3, 4)]
    assert lines[0] == "round 1/4, loss 2.000, 1,234 clients/s"
    assert "accuracy" not in lines[0]
    assert all("test accuracy 0.7500" in line for line in lines[1:])
    assert "left" in lines[2] and "left" not in lines[3]


def test_the_time_left_goes_by_the_clock_of_the_records():
    stream = io.StringIO()
    display = progress(4, stream=stream, line_seconds=0.0)
    for round, elapsed in ((1, 10.0), (2, 70.0), (3, 130.0)):
        display.update(round, {"round": round, "time/elapsed_seconds": elapsed})
    lines = stream.getvalue().splitlines()
    assert [line.partition(", ")[2] for line in lines] == ["", "2:00 left", "1:00 left"]


def test_a_quiet_log_still_gets_the_last_line():
    assert drive(io.StringIO(), line_seconds=1e9).splitlines() == [
        "round 4/4, loss 0.5000, test accuracy 0.7500, 1,234 clients/s"
    ]


def test_a_resumed_run_starts_where_it_stood():
    assert drive(io.StringIO(), start=2, line_seconds=0.0).startswith("round 3/4")
    assert drive(Terminal(), start=2).lstrip("\r").startswith(" 50%")


def test_a_terminal_gets_a_bar():
    text = drive(Terminal())
    assert "\r" in text and "4/4" in text and "100%" in text
    assert "loss 0.5000, test accuracy 0.7500" in text


def test_without_tqdm_a_terminal_gets_lines(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    assert "\r" not in drive(Terminal())


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_disabled_shows_nothing(stream):
    assert drive(stream, enabled=False) == ""
