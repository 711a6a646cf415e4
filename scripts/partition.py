"""Prints and draws the clients of a partition: `fljax partition`, which tells more.

python scripts/partition.py --dataset=digits --partition=shards --out=partition.png
"""

from fljax.commands import console

if __name__ == "__main__":
    console.call("partition")
