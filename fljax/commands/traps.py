"""Finds what is broken in an examined installation, and what is known to surprise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Trap(NamedTuple):
    """Something that is wrong or surprises.

    Attributes:
      said: What it is.
      remedy: What to do; empty where nothing has to be done.
      broken: Whether runs fail or are wrong because of it.
    """

    said: str
    remedy: str = ""
    broken: bool = False


# accelerator -> its name, and what brings the part of JAX that computes on it
_BROUGHT = {
    "nvidia": (
        "an NVIDIA GPU",
        "pip install 'fljax[cuda13]' (drivers from 580 on) or 'fljax[cuda12]' (from 525 on)",
    ),
    "tpu": ("a TPU", "pip install 'fljax[tpu]'"),
}
# variable -> what it does, where it is set to something true
_SWITCHES = {
    "JAX_DISABLE_JIT": "no round is compiled: runs take hundreds of times as long",
    "JAX_DEBUG_NANS": "every result is looked at: rounds wait for it",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "programs are compiled badly, as for quick tests",
}
_FALSE = ("", "0", "false", "off", "no")


def found(facts: Mapping[str, Any]) -> list[Trap]:
    """Returns what is wrong first, and then what surprises.

    Args:
      facts: From `fljax.commands.examination.examine`.
    """
    traps = [*_of_packages(facts), *_of_computing(facts), *_of_the_environment(facts)]
    return sorted(traps, key=lambda trap: not trap.broken)


def _of_packages(facts: Mapping[str, Any]) -> Iterator[Trap]:
    for said in facts["unmet"]:
        wanted = said.partition(", and ")[0]
        yield Trap(f"fljax needs {said}", f"pip install '{wanted}'", broken=True)
    jaxlib = facts["versions"].get("jaxlib")
    for plugin, version in facts["versions"].items():
        if plugin.startswith("jax-cuda") and version != jaxlib:
            extra = re.search(r"cuda\d+", plugin)[0]
            yield Trap(
                f"{plugin} {version} does not belong to jaxlib {jaxlib}, and JAX leaves it out",
                f"pip install --upgrade 'fljax[{extra}]'",
                broken=True,
            )
    for part in facts["parts"].values():
        if part["version"] is None and "[" not in part["remedy"]:
            yield Trap(f"{part['serves']} cannot be used", part["remedy"], broken=True)


def _of_computing(facts: Mapping[str, Any]) -> Iterator[Trap]:
    computing = facts["computing"]
    if "error" in computing:
        asked = facts["environment"].get("JAX_PLATFORMS")
        remedy = f"unset JAX_PLATFORMS, or install what computes on {asked}" if asked else ""
        if "XLA_FLAGS" in computing["error"]:
            remedy = "take what it names out of XLA_FLAGS"
        yield Trap(f"JAX does not compute here: {computing['error']}", remedy, broken=True)
        return
    run = computing["run"]
    if not run["last_loss"] < run["first_loss"]:
        yield Trap(
            f"three rounds have not learned: loss {run['first_loss']:.4g}, {run['last_loss']:.4g}",
            "take another version of JAX or of the driver, and tell us",
            broken=True,
        )
    for kind in facts["hardware"] if computing["platform"] == "cpu" else ():
        if kind in _BROUGHT and "JAX_PLATFORMS" not in facts["environment"]:
            name, remedy = _BROUGHT[kind]
            yield Trap(f"there is {name}, and JAX computes on the CPU", remedy)
    if computing["x64"]:
        yield Trap(
            "64-bit numbers are on (jax_enable_x64): twice the memory, and slow on accelerators",
            "unset JAX_ENABLE_X64, unless float64 is what you want",
        )
    cache = computing["cache"]
    if cache["folder"] is None:
        yield Trap("compiled programs are not kept", "unset JAX_ENABLE_COMPILATION_CACHE")
    elif not cache["writable"]:
        yield Trap(
            f"the cache {cache['folder']} cannot be written: every start compiles anew",
            "name a folder of yours in FLJAX_CACHE_DIR",
        )
    granted, cores = computing["granted_cores"], computing["cores"]
    if granted is not None and granted < cores:
        yield Trap(f"this container may use {granted} of the machine's {cores} cores")


def _of_the_environment(facts: Mapping[str, Any]) -> Iterator[Trap]:
    variables = facts["environment"]
    if variables.get("JAX_PLATFORMS"):
        yield Trap(f"JAX_PLATFORMS={variables['JAX_PLATFORMS']} decides on what JAX computes")
    if variables.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        yield Trap("CUDA_VISIBLE_DEVICES hides all GPUs", "unset it, or name some")
    if "device_count" in variables.get("XLA_FLAGS", ""):
        yield Trap(
            "XLA_FLAGS sets the number of CPU devices, and fljax leaves it so",
            "unset it, and fljax takes one for each core",
        )
    elif variables.get("XLA_FLAGS"):
        yield Trap(f"XLA_FLAGS={variables['XLA_FLAGS']} changes how programs are compiled")
    for name, said in _SWITCHES.items():
        if variables.get(name, "").lower() not in _FALSE:
            yield Trap(f"{name}={variables[name]}: {said}", f"unset {name}")
    if facts["data"]["said_by"] == "FLJAX_DATA_DIR" and facts["data"]["holds"] is None:
        yield Trap(
            f"FLJAX_DATA_DIR names {facts['data']['folder']}, which does not exist",
            "create it, or name another folder",
        )
