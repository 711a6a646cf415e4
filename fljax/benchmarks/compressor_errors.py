"""Compares the errors of fljax's compressors with those of FedJAX's, on the same vectors.

Both sides compress each vector many times. Where the algorithms are the same, the means of
|x_hat - x|^2 / |x|^2 differ by no more than chance: by four standard errors in one of 16,000
comparisons (of 36 comparisons, one in 440 runs has one).

FedJAX rotates whole vectors, filled up with zeros to the next power of two, clips TernGrad at 2.5
standard deviations and takes DRIVE's unbiased scale; the compressors here are set to the same. Bits
are each library's own count: FedJAX leaves out random keys and what a rotated vector is filled up
with, sends two numbers beside the signs of DRIVE and the trits of TernGrad where one is enough, and
takes log2(3) = 1.585 bits a trit where five of them in a byte are 1.6.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fljax import compression
from fljax.compression import Compressor

LIMIT = 4.0
_PEER = Path(__file__).with_name("fedjax_compressors.py")
_WHOLE = 2**30  # a block that holds every vector
_INSTALL = (
    "FedJAX needs an old JAX, so give it an environment of its own:\n"
    "  python3.11 -m venv ENV\n"
    "  ENV/bin/pip install fedjax==0.0.17 jax==0.4.30 jaxlib==0.4.30 dm-haiku==0.0.12 \\\n"
    "      optax==0.2.3 'numpy<2' 'scipy<1.13'\n"
    "and name it: --fedjax_python=ENV/bin/python"
)


class Case(NamedTuple):
    """A compressor that both libraries have.

    Attributes:
      method: Its name in `fljax.benchmarks.fedjax_compressors`.
      bits: Of a coordinate's level.
      ours: The same of this library.
    """

    method: str
    bits: int
    ours: Compressor


CASES = (
    Case("uniform", 1, compression.uniform(1)),
    Case("uniform", 4, compression.uniform(4)),
    Case("rotated_uniform", 1, compression.rotated_uniform(1, block=_WHOLE)),
    Case("rotated_uniform", 4, compression.rotated_uniform(4, block=_WHOLE)),
    Case("drive", 1, compression.drive(block=_WHOLE)),
    Case("terngrad", 2, compression.terngrad(clip=2.5)),
)


class Sample(NamedTuple):
    """Mean of the relative squared error over draws, its standard error, and bits of a message."""

    mean: float
    standard_error: float
    bits: float


class Row(NamedTuple):
    """One compressor on one vector."""

    case: str
    vector: str
    ours: Sample
    theirs: Sample

    @property
    def z(self) -> float:
        """The difference of the means in units of its standard error."""
        difference = self.ours.mean - self.theirs.mean
        error = math.hypot(self.ours.standard_error, self.theirs.standard_error)
        # what neither side draws at random has errors of rounding only
        return difference / max(error, 1e-6 * abs(self.ours.mean), sys.float_info.min)


def vectors(sizes: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Returns {"kind, d": float32[d]}: normal, log-normal with random signs, 2 % of it nonzero."""
    found = {}
    for d in sizes:
        generator = np.random.default_rng([seed, d])
        normal = generator.standard_normal(d)
        heavy = generator.choice([-1, 1], d) * np.exp(2 * generator.standard_normal(d))
        sparse = np.where(generator.permutation(d) < max(1, d // 50), normal, 0)
        for kind, x in {"normal": normal, "log-normal": heavy, "sparse": sparse}.items():
            found[f"{kind}, {d:,}"] = x.astype(np.float32)
    return found


def sample(errors: Sequence[float], bits: float) -> Sample:
    """Returns what is compared of the errors of many draws."""
    drawn = np.asarray(errors, np.float64)
    return Sample(drawn.mean(), drawn.std(ddof=1) / math.sqrt(drawn.size), bits)


def our_samples(
    cases: Sequence[Case], named: Mapping[str, np.ndarray], draws: int, seed: int
) -> dict[tuple[str, int, str], Sample]:
    """Returns {(method, bits, vector): sample} of this library."""
    keys = jax.random.split(jax.random.key(seed), draws)
    samples = {}
    for case in cases:
        code = case.ours

        @jax.jit
        def received(x, code=code):
            return jax.lax.map(lambda key: code.decode(code.encode(key, x), x.size), keys)

        for name, x in named.items():
            payload = jax.eval_shape(code.encode, keys[0], jax.ShapeDtypeStruct(x.shape, x.dtype))
            exact = x.astype(np.float64)
            error = np.asarray(received(jnp.asarray(x)), np.float64) - exact
            errors = (error**2).sum(1) / (exact @ exact)
            samples[case.method, case.bits, name] = sample(errors, int(code.bits(payload, x.size)))
    return samples


def fedjax_samples(
    python: str, cases: Sequence[Case], named: Mapping[str, np.ndarray], draws: int, seed: int
) -> tuple[dict[tuple[str, int, str], Sample], dict[str, str]]:
    """Returns ({(method, bits, vector): sample} of FedJAX, its versions).

    Args:
      python: The interpreter that has FedJAX.
      cases, named, draws, seed: As for `our_samples`.

    Raises:
      ValueError: If this interpreter has no FedJAX, or FedJAX fails.
    """
    try:
        probe = subprocess.run([python, "-c", "import fedjax"], capture_output=True, text=True)
    except OSError as error:
        raise ValueError(f"{python!r} cannot be run: {error}.\n{_INSTALL}") from None
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"{python!r} cannot import FedJAX: {reason}\n{_INSTALL}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npz"
        np.savez(file, **named)
        which = json.dumps([(case.method, case.bits) for case in cases])
        # -P: what stands beside the program is not to be imported
        command = [python, "-P", _PEER, f"--vectors={file}", f"--cases={which}"]
        command += [f"--draws={draws}", f"--seed={seed}"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"FedJAX failed:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    samples = {
        (result["method"], result["levels_bits"], result["vector"]): sample(
            result["errors"], result["bits"]
        )
        for result in said["results"]
    }
    return samples, said["versions"]


def rows(
    cases: Sequence[Case],
    ours: Mapping[tuple[str, int, str], Sample],
    theirs: Mapping[tuple[str, int, str], Sample],
) -> list[Row]:
    """Returns both sides' samples beside one another.

    Args:
      cases: What was compared.
      ours, theirs: {(method, bits, vector): sample}.
    """
    names = {(case.method, case.bits): case.ours.name for case in cases}
    return [Row(names[key[:2]], key[2], sampled, theirs[key]) for key, sampled in ours.items()]


def far(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows whose difference is no chance."""
    return [row for row in rows if not abs(row.z) <= LIMIT]


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| compressor | vector, d | error, fljax | standard error | error, FedJAX "
        "| standard error | z | bits, fljax | bits, FedJAX |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        cells = [row.case, row.vector]
        for side in (row.ours, row.theirs):
            cells += [f"{side.mean:.5g}", f"{side.standard_error:.2g}"]
        cells += [f"{row.z:+.2f}", f"{row.ours.bits:,.0f}", f"{row.theirs.bits:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(rows: Sequence[Row], draws: int, versions: Mapping[str, Any]) -> str:
    """Returns what a comparison comes to, in a line or two."""
    largest = max(abs(row.z) for row in rows)
    theirs = ", ".join(f"{name} {version}" for name, version in versions.items())
    verdict = (
        "errors are the same" if not far(rows) else f"{len(far(rows))} differ by more than chance"
    )
    return (
        f"{len(rows)} comparisons of {draws} draws a side, largest |z| {largest:.2f}, limit "
        f"{LIMIT:g} (Bonferroni: chance exceeds it in {1 - _within(LIMIT) ** len(rows):.2%} of "
        f"runs): {verdict}. FedJAX's side: {theirs}; this one: jax {jax.__version__}."
    )


def _within(z: float) -> float:
    """Returns the probability that a normal number lies within z standard deviations."""
    return math.erf(z / math.sqrt(2))
