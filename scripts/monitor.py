"""Deploys models whose data drift, and watches them: `fljax monitor`, which tells more.

python scripts/monitor.py --config=configs/drift_over_time.py --workdir=runs/drift
"""

from fljax.commands import console

if __name__ == "__main__":
    console.call("monitor")
