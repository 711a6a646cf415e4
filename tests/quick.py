"""Compiles quickly for tests: without optimizations where values are all that matters, and once."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import os
import threading
from typing import Any
from unittest import mock

import jax
from jax._src import compiler
from jax._src.interpreters import mlir

# On CPUs most of XLA's time goes into its emitters of fused loops, which JAX's own option leaves
# on: without them a test of a round takes two thirds of the time. And where every core has a worker
# of the tests, parts of a program that compile side by side only repeat each other's beginnings.
OPTIONS = {"xla_cpu_parallel_codegen_split_count": 1}
if jax.__version_info__ < (0, 11):
    # a later XLA does not know the option
    OPTIONS["xla_cpu_use_fusion_emitters"] = False
_LEVEL = {"xla_backend_optimization_level": 0}
_FLAGS = [f"--{name}={str(value).lower()}" for name, value in OPTIONS.items()]
ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip(),
}


# Executables that are kept, of which the largest take a few megabytes.
_KEPT = 300
_programs: collections.OrderedDict[tuple, Any] = collections.OrderedDict()


@contextlib.contextmanager
def compilation():
    """Compiles what is compiled inside without optimizations."""
    options_of = compiler.get_compile_options
    before = jax.config.read("jax_disable_most_optimizations")

    def quick_options(*args, env_options_overrides=None, **options):
        # programs that run once, such as initializations, ask for a level of their own
        overrides = OPTIONS | (env_options_overrides or {}) | _LEVEL
        return options_of(*args, env_options_overrides=overrides, **options)

    with mock.patch.object(compiler, "get_compile_options", quick_options):
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", before)


def compile_equal_programs_once() -> None:
    """Lets this process compile equal programs once, as long as it lives.

    Runs that are resumed, repeated or compared trace their programs anew, mostly to the same code.
    JAX's own cache would write each to disk.
    """
    compile_program = compiler.compile_or_get_cached

    def compiled(backend, computation, devices, options, callbacks, *rest):
        compile_it = functools.partial(
            compile_program, backend, computation, devices, options, callbacks, *rest
        )
        if callbacks or jax.config.jax_enable_compilation_cache:
            return compile_it()
        code = computation.operation.get_asm(enable_debug_info=False)
        key = hash(code), len(code), str(devices), options.SerializeAsString()
        if key not in _programs:
            _programs[key] = compile_it()
        _programs.move_to_end(key)
        while len(_programs) > _KEPT:
            _programs.popitem(last=False)
        return _programs[key]

    compiler.compile_or_get_cached = compiled


# What a context holds, constants too, is there as long as it.
_PROGRAMS_OF_A_CONTEXT = 50


def lower_in_few_contexts() -> None:
    """Lets this process make MLIR's context for many programs at once.

    Its dialects take longer to load than a small program takes to lower, and tests have thousands.
    """
    make_context, mine = mlir.make_ir_context, threading.local()

    def context():
        if getattr(mine, "left", 0) == 0:
            mine.context, mine.left = make_context(), _PROGRAMS_OF_A_CONTEXT
        mine.left -= 1
        return mine.context

    mlir.make_ir_context = context


def collect_rarely() -> None:
    """Lets this process look for cycles rarely, and never in what is imported by now.

    Tracing makes and drops small objects by the million, which Python would look through every 700.
    A tenth of what tests of rounds take.
    """
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
