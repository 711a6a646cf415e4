"""What tests of kernels share."""

import jax
import pytest


@pytest.fixture(scope="module")
def quick_compilation():
    """Compiles without optimizations, for tests of values whose programs run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
