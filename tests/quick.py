"""Names the settings under which tests of values compile quickly, here and in other processes."""

from __future__ import annotations

import os

# On CPUs most of XLA's time goes into its emitters of fused loops, which JAX's own option leaves
# on: without them a test of a round takes two thirds of the time. And where every core has a worker
# of the tests, parts of a program that compile side by side only repeat each other's beginnings.
OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
_FLAGS = [f"--{name}={str(value).lower()}" for name, value in OPTIONS.items()]
ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip(),
}
