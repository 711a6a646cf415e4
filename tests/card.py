"""Programs as they are handed to the compiler of an NVIDIA card, on a machine without one."""

from __future__ import annotations

from inspect import signature
from typing import Any

import jax
from jax.sharding import AbstractDevice, AbstractMesh


def lowered(function: Any, *arguments: Any) -> str:
    """Returns the text of a jitted function for an H100, its kernels included."""
    # newer versions of JAX want to know which card kernels are for, and older ones take no platform
    of_a_card = {"platform": "gpu"} if "platform" in signature(AbstractDevice).parameters else {}
    card = AbstractDevice("NVIDIA H100 80GB HBM3", None, **of_a_card)
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("devices",), abstract_device=card)):
        return function.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def kernels(text: str) -> int:
    """Returns how many kernels of our own a program calls."""
    return text.count("xla.gpu.triton")
