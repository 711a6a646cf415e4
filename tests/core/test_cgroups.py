"""Limits of containers, as the files of both versions of control groups tell them."""

import pytest

from fljax.core import capacity
from fljax.core.cgroups import granted_bytes, granted_cores
from fljax.engine.devices import distributed


@pytest.fixture
def limits(tmp_path):
    """Returns (files, what the process's groups are) -> (cores, bytes) that are granted."""

    def read(files, groups=""):
        (tmp_path / "groups").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        where = tmp_path / "mount", tmp_path / "groups"
        return granted_cores(*where), granted_bytes(*where)

    return read


def test_a_container_is_the_root_of_what_it_sees(limits):
    files = {"cpu.max": "250000 100000\n", "memory.max": "8589934592\n"}
    assert limits(files, "0::/\n") == (3, 2**33), "half a core is worth one"


def test_a_group_has_no_more_than_its_parents(limits):
    files = {
        "slurm/cpu.max": "400000 100000", "slurm/memory.max": "max",
        "slurm/job_1/cpu.max": "max 100000", "slurm/job_1/memory.max": "1000000000",
        "slurm/job_1/step_0/memory.max": "2000000000",
    }  # fmt: skip
    assert limits(files, "0::/slurm/job_1/step_0\n") == (4, 10**9)


@pytest.mark.parametrize("cpu", ["cpu", "cpu,cpuacct"])
def test_version_1_has_a_folder_for_each_controller(limits, cpu):
    files = {
        f"{cpu}/docker/a/cpu.cfs_quota_us": "50000", f"{cpu}/docker/a/cpu.cfs_period_us": "100000",
        f"{cpu}/cpu.cfs_quota_us": "-1", f"{cpu}/cpu.cfs_period_us": "100000",
        "memory/docker/a/memory.limit_in_bytes": "4000000000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }  # fmt: skip
    groups = "3:cpuset:/\n4:cpu,cpuacct:/docker/a\n5:memory:/docker/a\n"
    assert limits(files, groups) == (1, 4 * 10**9)


@pytest.mark.parametrize("files", [{}, {"cpu.max": "max 100000", "memory.max": "max"}])
def test_without_a_limit_all_is_granted(limits, files):
    assert limits(files, "0::/\n") == (None, None)


def test_a_run_takes_what_is_granted(monkeypatch):
    whole = capacity.physical_bytes()
    monkeypatch.setattr(capacity, "granted_bytes", lambda: 10**9)
    assert capacity.physical_bytes() == 10**9 < whole
    monkeypatch.setattr(
        distributed.os, "sched_getaffinity", lambda _: set(range(64)), raising=False
    )
    for granted, used in ((4, 4), (100, 64), (None, 64)):
        distributed.cores.cache_clear()
        monkeypatch.setattr(distributed, "granted_cores", lambda n=granted: n)
        assert distributed.cores() == used
    distributed.cores.cache_clear()
