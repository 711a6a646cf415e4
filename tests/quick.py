"""Compiles quickly, without optimizations, for tests of values: here and in other processes."""

from __future__ import annotations

import contextlib
import os
from unittest import mock

import jax
from jax._src import compiler

# On CPUs most of XLA's time goes into its emitters of fused loops, which JAX's own option leaves
# on: without them a test of a round takes two thirds of the time. And where every core has a worker
# of the tests, parts of a program that compile side by side only repeat each other's beginnings.
OPTIONS = {"xla_cpu_parallel_codegen_split_count": 1}
if jax.__version_info__ < (0, 11):
    # a later XLA does not know the option
    OPTIONS["xla_cpu_use_fusion_emitters"] = False
_FLAGS = [f"--{name}={str(value).lower()}" for name, value in OPTIONS.items()]
ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip(),
}


@contextlib.contextmanager
def compilation():
    """Compiles what is compiled inside without optimizations, and equal programs once.

    Runs that are resumed, repeated or compared trace their programs anew, mostly to the same code.
    """
    options_of, compile_program = compiler.get_compile_options, compiler.compile_or_get_cached
    programs = {}

    def quick_options(*args, env_options_overrides=None, **options):
        overrides = OPTIONS | (env_options_overrides or {})
        return options_of(*args, env_options_overrides=overrides, **options)

    def compiled(backend, computation, devices, options, callbacks, *rest):
        code = computation.operation.get_asm(enable_debug_info=False)
        key = hash(code), len(code), str(devices), options.SerializeAsString()
        if callbacks or key not in programs:
            programs[key] = compile_program(
                backend, computation, devices, options, callbacks, *rest
            )
        return programs[key]

    with (
        mock.patch.object(compiler, "get_compile_options", quick_options),
        mock.patch.object(compiler, "compile_or_get_cached", compiled),
    ):
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", False)
