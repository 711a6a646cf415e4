"""Compares the errors of fljax's compressors with FedJAX's, on the same vectors.

    python scripts/compare_compressors.py --fedjax_python=ENV/bin/python

Prints a Markdown table. Exit status: 0 if all errors agree, 1 if one differs by more than four
standard errors, 2 if nothing was compared, since that Python has no FedJAX. What is compared, and
what FedJAX counts differently: `fljax/benchmarks/compressor_errors.py`.
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do

import sys

from absl import flags

from fljax.benchmarks import compressor_errors as errors
from fljax.recording import say

_PYTHON = flags.DEFINE_string("fedjax_python", sys.executable, "The Python that has FedJAX.")
_DRAWS = flags.DEFINE_integer("draws", 400, "Draws of each compressor.", lower_bound=2)
_SIZES = flags.DEFINE_list("sizes", ["1024", "1500"], "Lengths of the vectors.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the vectors and of both sides' draws.")


def main(argv):
    vectors = errors.vectors([int(size) for size in _SIZES.value], _SEED.value)
    work = errors.CASES, vectors, _DRAWS.value, _SEED.value
    try:
        theirs, versions = errors.fedjax_samples(_PYTHON.value, *work)
    except ValueError as error:
        say(f"Nothing was compared. {error}")
        return 2
    rows = errors.rows(errors.CASES, errors.our_samples(*work), theirs)
    commands.show(errors.table(rows))
    commands.show("\n" + errors.summary(rows, _DRAWS.value, versions))
    return 1 if errors.far(rows) else 0


if __name__ == "__main__":
    commands.execute(main, starts_processes=True)
