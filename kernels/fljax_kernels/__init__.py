"""Kernels for models that are trained by many clients side by side.

Each kernel stands in a file of its own, with a plain reference in `reference` and a speed
comparison in `benchmark`.
"""

from fljax_kernels.conv import conv_general_dilated, gemm_conv
from fljax_kernels.pool import max_pool

__all__ = ["conv_general_dilated", "gemm_conv", "max_pool"]
