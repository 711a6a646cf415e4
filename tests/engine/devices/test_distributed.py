"""One process agrees with itself; errors pass through. Two of them: tests/invariants."""

import pytest

from fljax.engine.devices import distributed


def test_one_process_is_the_main_one_and_hears_itself():
    assert distributed.is_main() and distributed.num_processes() == 1
    assert distributed.allgather({"a": 1}) == [{"a": 1}]
    assert distributed.neighbours() == 1


@pytest.mark.parametrize("block", [distributed.all_or_none, distributed.exit_on_failure])
def test_errors_of_a_block_pass_through(block):
    with pytest.raises(ValueError, match="as it was"), block():
        raise ValueError("as it was")


def test_processes_that_hold_something_else_are_named(monkeypatch):
    monkeypatch.setattr(distributed, "allgather", lambda value: [value, value, "other"])
    with pytest.raises(ValueError, match="The seeds of process 2 are not those of process 0"):
        distributed.check_same(7, "seeds")


def test_unbound_processes_share_cores_and_bound_ones_keep_theirs(monkeypatch):
    monkeypatch.setattr(distributed.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    here = distributed.socket.gethostname()
    mine, bound, elsewhere = [here, [0, 1, 2, 3]], [here, [4, 5]], ["elsewhere", [0, 1, 2, 3]]
    for others, cores in (([mine], 2), ([bound], 4), ([elsewhere], 4), ([mine] * 7, 1)):
        distributed.cores.cache_clear()
        monkeypatch.setattr(distributed, "allgather", lambda value, o=others: [value, *o])
        assert distributed.cores() == cores
    distributed.cores.cache_clear()
