"""What runs keep for the next ones: compiled programs, and layouts that were found to be fast."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax

# Below, reading a program from disk gains nothing.
_MIN_COMPILE_SECONDS = 0.1


def cache_dir() -> Path:
    """Returns the folder of what runs keep: $FLJAX_CACHE_DIR, else ~/.cache/fljax."""
    chosen = os.environ.get("FLJAX_CACHE_DIR") or "~/.cache/fljax"
    return Path(chosen).expanduser()


def use_compilation_cache() -> None:
    """Lets JAX keep compiled programs on disk, so that the next run starts in seconds.

    Whoever has chosen a folder already (`jax_compilation_cache_dir`), or has switched JAX's cache
    off (`jax_enable_compilation_cache`), is left alone. Programs for CPUs hold the instructions of
    one processor type, so each type has a folder of its own.
    """
    if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla" / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)


def _processor() -> str:
    """Returns a name for the instructions that this processor has."""
    text = platform.machine() + platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            text += "".join(sorted({line for line in file if line.startswith(("flags", "Feat"))}))
    except OSError:
        pass
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
