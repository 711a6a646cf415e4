"""Times the round program on named workloads: `fljax benchmark`, which tells more.

python scripts/benchmark.py --workloads=softmax_1000 --rounds=5 --out=now.json
"""

from fljax.commands import console

if __name__ == "__main__":
    console.call("benchmark")
