"""Kernels for models that are trained by many clients side by side.

Each kernel stands in a file of its own. The package needs JAX alone; what measures and checks it
stands in `fljax.benchmarks.kernels` and `tests/kernels/`.
"""

from fljax_kernels.conv import conv_general_dilated, gemm_conv
from fljax_kernels.conv_relu import conv_relu
from fljax_kernels.count_sketch import sketch, unsketch
from fljax_kernels.hadamard import hadamard_transform, rotate, rotate_back
from fljax_kernels.lstm import lstm
from fljax_kernels.natural import round_to_powers_of_two
from fljax_kernels.packing import pack_bits, unpack_bits
from fljax_kernels.pool import max_pool
from fljax_kernels.quantize import (
    dequantize_range,
    dequantize_symmetric,
    quantize_range,
    quantize_symmetric,
)
from fljax_kernels.random_k import random_k, random_k_mask
from fljax_kernels.random_words import random_words
from fljax_kernels.sign import pack_signs, unpack_signs
from fljax_kernels.ternary import deternarize, pack_trits, ternarize, unpack_trits
from fljax_kernels.threefry import threefry
from fljax_kernels.top_k import top_k, top_k_mask

__all__ = [
    "conv_general_dilated",
    "conv_relu",
    "dequantize_range",
    "dequantize_symmetric",
    "deternarize",
    "gemm_conv",
    "hadamard_transform",
    "lstm",
    "max_pool",
    "pack_bits",
    "pack_signs",
    "pack_trits",
    "quantize_range",
    "quantize_symmetric",
    "random_k",
    "random_k_mask",
    "random_words",
    "rotate",
    "rotate_back",
    "round_to_powers_of_two",
    "sketch",
    "ternarize",
    "threefry",
    "top_k",
    "top_k_mask",
    "unpack_bits",
    "unpack_signs",
    "unpack_trits",
    "unsketch",
]
