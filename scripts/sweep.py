"""Runs a hyperparameter sweep: `fljax sweep`, which tells more.

python scripts/sweep.py --config=configs/sweep_seeds.py --workdir=runs/seeds
"""

from fljax.commands import console

if __name__ == "__main__":
    console.call("sweep")
