"""Compression of what clients send and receive: codes, links, memories.

Pipeline(uplink=(error_feedback(uplink(top_k(0.01))),), downlink=(downlink(bf16()),))
"""

from fljax.compression.casts import bf16, fp16, identity
from fljax.compression.compressor import Compressor, chain
from fljax.compression.differences import diana, ef21, marina
from fljax.compression.feedback import (
    downlink_difference,
    downlink_error_feedback,
    error_feedback,
)
from fljax.compression.links import downlink, uplink
from fljax.compression.lowrank import powersgd
from fljax.compression.quantized import int8, int8_channels, qsgd, uniform
from fljax.compression.rotated import drive, eden, rotated_uniform, rotation
from fljax.compression.signs import natural, sign, terngrad
from fljax.compression.sketched import fetch_sgd
from fljax.compression.sparse import index_bits, prune, rand_k, top_k

__all__ = [
    "Compressor",
    "bf16",
    "chain",
    "diana",
    "downlink",
    "downlink_difference",
    "downlink_error_feedback",
    "drive",
    "eden",
    "ef21",
    "error_feedback",
    "fetch_sgd",
    "fp16",
    "identity",
    "index_bits",
    "int8",
    "int8_channels",
    "marina",
    "natural",
    "powersgd",
    "prune",
    "qsgd",
    "rand_k",
    "rotated_uniform",
    "rotation",
    "sign",
    "terngrad",
    "top_k",
    "uniform",
    "uplink",
]
