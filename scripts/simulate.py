"""Runs a federated simulation from a configuration file: `fljax run`, which tells more.

python scripts/simulate.py --config=configs/quickstart.py --workdir=runs/first
"""

from fljax.commands import console

if __name__ == "__main__":
    console.call("run")
