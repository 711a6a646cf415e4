"""Runs Orbax in each process by itself, and keeps its log apart from the user's."""

from __future__ import annotations

import logging

import jax

from fljax.core import optional


def load():
    """Imports Orbax's checkpoints, or says what to install."""
    with optional.needed("orbax"):
        import orbax.checkpoint
    return orbax.checkpoint


def alone(orbax):
    """Of several processes each reads by itself, and one writes; none waits for the others."""
    process = jax.process_index()
    return orbax.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process{process}",
    )


def drop_chatter(record: logging.LogRecord) -> bool:
    """Orbax logs to the root absl logger, as the user's scripts do: tell them apart by file.

    Its errors are dropped as well: they are raised, too, and become one line.
    """
    return "orbax" not in record.pathname
