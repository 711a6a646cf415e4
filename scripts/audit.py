"""Audits a configuration: `fljax audit`, which tells more.

python scripts/audit.py --config=configs/hospitals_heart.py --workdir=runs/audit
"""

from fljax.commands import console

if __name__ == "__main__":
    console.call("audit")
