"""Runs a hyperparameter sweep: trials that share shapes train side by side in one program.

    fljax sweep sweep_seeds
    fljax sweep mine.py --workdir=runs/seeds

The config file names what all trials share, `get_config()`, and what they differ in, `get_sweep()`;
flags replace parts of the latter:

    --axis=client_lr=0.01,0.1,1 --axis=server_lr=0.5,1 --seeds=3

`--resume` goes on with the sweep of the workdir and repeats no finished trial. Several processes
share a sweep by rank and count: `--share=0/8`, or from their environment (a Slurm array, a
Kubernetes indexed Job, FLJAX_SWEEP_RANK and FLJAX_SWEEP_COUNT, ...); see docs/studies.md. It is
`fljax study`, but for a directory that holds a study: without `--resume` that is refused.
"""

from __future__ import annotations

from absl import flags

from fljax.commands import studies


def define() -> None:
    """Defines the flags of a sweep."""
    studies.define()
    flags.DEFINE_bool("resume", False, "Go on with the sweep of the workdir.")


def main(argv: list[str]) -> int:
    """Runs the sweep, and prints what was found."""
    return studies.run(resume=flags.FLAGS.resume)
