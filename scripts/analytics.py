"""Asks the clients of a configuration for statistics: `fljax analytics`, which tells more.

python scripts/analytics.py --config=configs/analytics.py --workdir=runs/words
"""

from fljax.commands import console

if __name__ == "__main__":
    console.call("analytics")
