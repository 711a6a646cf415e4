"""Devices of the edge by name, as their makers describe them: speed, memory, power, and from where.

Peaks of processors without a figure of their maker follow from cores x clock x operations a cycle:
16 float32 operations a cycle of a Cortex-A76, A78 or A720 (two units of 128 bits, a multiplication
and an addition each), 32 of a Cortex-X4, 8 of smaller cores, 2 of a Cortex-M. The bandwidth of a
memory is its transfers a second times its width. What nobody publishes is estimated, and
`Hardware.estimated` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fljax.core.names import unknown

_GB, _MB, _KB = 1e9, 1e6, 1e3
_SHARED = "Memory is shared with the system, which leaves about half of it."


class Hardware(NamedTuple):
    """Published facts about a device.

    Attributes:
      about: What it is, in a few words.
      kind: "cpu", "gpu", "accelerator" or "microcontroller": how well programs use it; see
        `fljax.systems.roofline`.
      peak: {dtype: operations a second at most}. A dtype that is not there cannot be computed with.
      bandwidth: Bytes a second between memory and processor.
      memory: Bytes that a program may take.
      watts: Of the device under load, all of it.
      radio_watts: While it sends or receives.
      sources: Where the figures are from.
      estimated: Names of the fields that are estimates of ours.
    """

    about: str
    kind: str
    peak: Mapping[str, float]
    bandwidth: float
    memory: float
    watts: float
    radio_watts: float
    sources: str
    estimated: tuple[str, ...]

    @property
    def trains(self) -> bool:
        """Says whether it computes with floating-point numbers, which gradients take."""
        return any(dtype.startswith("float") for dtype in self.peak)


# name -> what is known of it
HARDWARE: dict[str, Hardware] = {
    "jetson_agx_orin": Hardware(
        "NVIDIA Jetson AGX Orin, 64 GB", "gpu",
        {"float32": 5.3e12, "float16": 10.6e12, "int8": 85e12},
        204.8 * _GB, 32 * _GB, 60.0, 1.5,
        "NVIDIA Jetson AGX Orin Series technical brief: 5.3 FP32 TFLOP/s on 2048 cores, 170 sparse "
        "TOPS of the GPU alone (half of them dense), 204.8 GB/s, 15 to 60 W. " + _SHARED,
        ("memory", "radio_watts"),
    ),
    "jetson_orin_nano": Hardware(
        "NVIDIA Jetson Orin Nano, 8 GB, Super mode", "gpu",
        {"float32": 2.09e12, "float16": 4.18e12, "int8": 33e12},
        102 * _GB, 4 * _GB, 25.0, 1.5,
        "NVIDIA Jetson Orin Nano Super data sheet: 1024 cores at 1.02 GHz, 67 sparse TOPS (half of "
        "them dense), 102 GB/s, 7 to 25 W. " + _SHARED,
        ("memory", "radio_watts"),
    ),
    "raspberry_pi_5": Hardware(
        "Raspberry Pi 5, 8 GB", "cpu", {"float32": 154e9, "float16": 307e9, "int8": 614e9},
        17.1 * _GB, 4 * _GB, 9.8, 1.0,
        "Raspberry Pi 5 product brief: 4 Cortex-A76 at 2.4 GHz, LPDDR4X-4267 of 32 bits. Watts: "
        "J. Geerling, CPU stress test of the 4 GB board. " + _SHARED,
        ("memory", "radio_watts"),
    ),
    "raspberry_pi_4": Hardware(
        "Raspberry Pi 4, 4 GB", "cpu", {"float32": 57.6e9, "int8": 115e9},
        12.8 * _GB, 2 * _GB, 7.0, 1.0,
        "Raspberry Pi 4 product brief: 4 Cortex-A72 at 1.8 GHz, LPDDR4-3200 of 32 bits. " + _SHARED,
        ("memory", "watts", "radio_watts"),
    ),
    "phone_high": Hardware(
        "phone of the upper class, as with Snapdragon 8 Gen 3; CPU", "cpu",
        {"float32": 392e9, "float16": 784e9, "int8": 1568e9},
        76.8 * _GB, 4 * _GB, 6.0, 1.5,
        "Qualcomm Snapdragon 8 Gen 3: Cortex-X4 at 3.3 GHz, A720 3 at 3.2 and 2 at 3.0, A520 2 at "
        "2.3; LPDDR5X at 4800 MHz of 64 bits. Watts: 6.3 of its large core alone (Golden "
        "Reviewer), which phones keep up for a short time.",
        ("memory", "watts", "radio_watts"),
    ),
    "phone_mid": Hardware(
        "phone of the middle class, as with Snapdragon 6 Gen 1; CPU", "cpu",
        {"float32": 198e9, "float16": 397e9, "int8": 793e9},
        22 * _GB, 2 * _GB, 4.0, 1.5,
        "Qualcomm Snapdragon 6 Gen 1: 4 Cortex-A78 at 2.2 GHz, 4 A55 at 1.8; LPDDR5 at 2750 MHz, "
        "taken to be of 32 bits.",
        ("bandwidth", "memory", "watts", "radio_watts"),
    ),
    "phone_low": Hardware(
        "phone of the lower class, as with Snapdragon 680; CPU", "cpu",
        {"float32": 138e9, "int8": 275e9},
        17.1 * _GB, 1 * _GB, 3.0, 1.5,
        "Qualcomm Snapdragon 680: 4 Cortex-A73 at 2.4 GHz, 4 A53 at 1.9; LPDDR4X at 2133 MHz of 32 "
        "bits.",
        ("memory", "watts", "radio_watts"),
    ),
    "edge_tpu": Hardware(
        "Google Coral Edge TPU, inference with 8-bit integers", "accelerator", {"int8": 4e12},
        31 * _GB, 8 * _MB, 2.0, 0.0,
        "Coral data sheets: 4 TOPS of int8 and nothing else, 2 TOPS a watt, 8 MB of SRAM. The "
        "bandwidth is that within the chip: 64 x 64 units at 480 MHz, which 4 TOPS are, taken to "
        "be fed 64 bytes a cycle.",
        ("bandwidth",),
    ),
    "mcu_cortex_m7": Hardware(
        "microcontroller, as STM32H743", "microcontroller", {"float32": 0.96e9, "int8": 1.92e9},
        1.92 * _GB, 1 * _MB, 0.5, 0.3,
        "STM32H743 data sheet: Cortex-M7 at 480 MHz, floating-point unit, 1 MB of RAM, a bus of "
        "64 bits at 240 MHz.",
        ("watts", "radio_watts"),
    ),
    "mcu_cortex_m4": Hardware(
        "microcontroller, as nRF52840 of an Arduino Nano 33 BLE", "microcontroller",
        {"float32": 0.128e9, "int8": 0.256e9},
        0.256 * _GB, 256 * _KB, 0.02, 0.03,
        "nRF52840 product specification: Cortex-M4F at 64 MHz, 256 KB of RAM, a bus of 32 bits.",
        ("watts", "radio_watts"),
    ),
}  # fmt: skip


def hardware(name: str) -> Hardware:
    """Returns what is known of a device.

    Raises:
      ValueError: For a name that is not in the table; it names the nearest.

    Example:
      >>> from fljax.systems.hardware import hardware
      >>> hardware("raspberry_pi_5").watts
      9.8
    """
    found: Any = HARDWARE.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(unknown("device", name, HARDWARE) + ".")
    return found
