"""Runs a study: `fljax study`, which tells more.

python scripts/study.py --config=configs/compression_tradeoff.py --workdir=runs/tradeoff
"""

from fljax.commands import console

if __name__ == "__main__":
    console.call("study")
