"""Shares of a sweep: from whatever launcher, the same part of the same sweep again."""

import pytest

from fljax.studies import Share, parse_share
from fljax.studies.journal import Place, keep_share, kept_share, share_of
from fljax.studies.results import ROWS


def array(index, count, first=0, **more):
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
    return dict(zip(names, map(str, (index, count, first)), strict=True)) | more


STEP = {"SLURM_PROCID": "1", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"FLJAX_SWEEP_RANK": "1", "FLJAX_SWEEP_COUNT": "3"}, (1, 3)),
        (array(4, 4, 2), (2, 4)),
        (array(1, 4) | {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (1, 4)),
        ({"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "4"}, (2, 4)),
        (STEP | {"SLURM_STEP_ID": "0"}, (1, 8)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2)),
        ({"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2"}, (1, 2)),
    ],
)
def test_launchers_say_rank_and_count(environment, expected):
    assert share_of(environment)[:2] == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (STEP, "not started by srun"),
        (array(0, 4) | STEP | {"SLURM_STEP_ID": "0"}, "--ntasks=1"),
        (array(6, 4, 0), "without gaps"),
        ({"JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETIONS is not set"),
    ],
)
def test_what_would_run_a_wrong_part_is_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        share_of(environment)


def test_a_task_that_is_submitted_again_keeps_its_part(tmp_path):
    whole = [share_of(array(index, 4, 1)) for index in (1, 2, 3, 4)]
    for share in whole:
        keep_share(Place(tmp_path, share))
    kept = kept_share(tmp_path)
    again = share_of(array(3, 1, 3), kept)
    assert again == whole[2] == Share(2, 4, 1)
    assert Place(tmp_path, again).directory == tmp_path / "parts/0002"
    assert [share_of(array(index, 2, 2), kept) for index in (2, 4)] == [whole[1], whole[3]]
    with pytest.raises(ValueError, match="a study of 4 processes from 1 on"):
        share_of(array(5, 1, 5), kept)


def test_another_number_of_processes_is_refused(tmp_path):
    keep_share(Place(tmp_path / "shared", Share(1, 4)))
    for share in (Share(), Share(0, 2), share_of(array(0, 8), kept_share(tmp_path / "shared"))):
        with pytest.raises(FileExistsError, match="the parts of a study of 4 processes"):
            keep_share(Place(tmp_path / "shared", share))
    keep_share(Place(tmp_path / "alone", Share()))
    assert kept_share(tmp_path / "alone") is None
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / ROWS).write_text("{}\n")
    keep_share(Place(tmp_path / "alone", Share()))
    with pytest.raises(FileExistsError, match="a study of a single process"):
        keep_share(Place(tmp_path / "alone", Share(0, 2)))


def test_a_share_may_be_named():
    assert parse_share("3/8") == Share(3, 8)
    for text in ("8/8", "3", "a/b", "-1/2"):
        with pytest.raises(ValueError, match="RANK/COUNT"):
            parse_share(text)
