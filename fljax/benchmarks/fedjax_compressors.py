"""FedJAX's compressors on given vectors. Runs in FedJAX's own Python, and imports nothing of fljax.

    ENV/bin/python fedjax_compressors.py --vectors=FILE.npz --cases='[["uniform", 4]]' \
        --draws=400 --seed=0

Prints one line of JSON: versions, and for each case and vector the squared error of each draw over
the squared norm, and the bits that FedJAX counts for one client.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from typing import Any

import numpy as np


def aggregator(method: str, bits: int, seed: int) -> Any:
    """Returns FedJAX's aggregator of a method, with 2^bits levels where their number is free."""
    import jax
    from fedjax.aggregators import compression

    key = jax.random.PRNGKey(seed)
    if method == "uniform":
        return compression.uniform_stochastic_quantizer(2**bits, key)
    if method == "rotated_uniform":
        return compression.rotated_uniform_stochastic_quantizer(2**bits, key)
    if method == "drive":
        return compression.structured_drive_quantizer(key)
    if method == "terngrad":
        return compression.terngrad_quantizer(key)
    raise ValueError(f"FedJAX has no compressor {method!r}")


def measure(method: str, bits: int, x: np.ndarray, draws: int, seed: int) -> dict[str, Any]:
    """Returns {"errors": of each draw, "bits": of one client}, of rounds with one client."""
    rounds = aggregator(method, bits, seed)
    state, errors = rounds.init(), []
    exact = x.astype(np.float64)
    for _ in range(draws):
        received, state = rounds.apply([(b"0", x, 1.0)], state)
        error = np.asarray(received, np.float64) - exact
        errors.append(error @ error / (exact @ exact))
    return {"errors": errors, "bits": float(state.num_bits) / draws}


def main() -> None:
    """Measures all cases on all vectors of the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vectors", required=True)
    parser.add_argument("--cases", type=json.loads, required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    with np.load(options.vectors) as file:
        vectors = dict(file)
    results = [
        {"method": method, "levels_bits": bits, "vector": name}
        | measure(method, bits, x, options.draws, options.seed)
        for method, bits in options.cases
        for name, x in vectors.items()
    ]
    versions = {name: importlib.metadata.version(name) for name in ("fedjax", "jax", "numpy")}
    print(json.dumps({"versions": versions, "results": results}))


if __name__ == "__main__":
    main()
