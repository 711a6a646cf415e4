"""Kernels for models that are trained by many clients side by side.

Each kernel stands in a file of its own, with a plain reference in `reference` and a speed
comparison in `benchmark`.
"""

from fljax_kernels.conv import conv_general_dilated, gemm_conv
from fljax_kernels.count_sketch import sketch, unsketch
from fljax_kernels.pool import max_pool
from fljax_kernels.random_k import random_k, random_k_mask
from fljax_kernels.top_k import top_k, top_k_mask

__all__ = [
    "conv_general_dilated",
    "gemm_conv",
    "max_pool",
    "random_k",
    "random_k_mask",
    "sketch",
    "top_k",
    "top_k_mask",
    "unsketch",
]
