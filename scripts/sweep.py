"""Runs a hyperparameter sweep: trials that share shapes train side by side in one program.

    python scripts/sweep.py --config=configs/sweep_seeds.py --workdir=runs/seeds

The config file names what all trials share, `get_config()`, and what they differ in, `get_sweep()`;
flags replace parts of the latter:

    --axis=client_lr=0.01,0.1,1 --axis=server_lr=0.5,1 --seeds=3

`--resume` goes on with the sweep of the workdir and repeats no finished trial. Several processes
share a sweep by rank and count: `--share=0/8`, or from their environment (a Slurm array, a
Kubernetes indexed Job, FLJAX_SWEEP_RANK and FLJAX_SWEEP_COUNT, ...); see docs/studies.md. It is
`scripts/study.py`, but for a directory that holds a study: without `--resume` that is refused.
"""

from fljax import commands  # isort: skip, it answers for what the others do

from absl import flags

from fljax.commands import studies

_CONFIG = studies.define()
_RESUME = flags.DEFINE_bool("resume", False, "Go on with the sweep of the workdir.")


def main(argv):
    return studies.run(_CONFIG, resume=_RESUME.value)


if __name__ == "__main__":
    commands.run(main, required=["config", "workdir"], overrides=True)
