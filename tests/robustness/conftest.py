"""Everything here is compared to float64 references, by programs that run once."""

import jax
import pytest


@pytest.fixture(autouse=True)
def x64(quick_compilation, weights_as_written):
    with jax.enable_x64(True):
        yield
