"""Records, summary, plots and checkpoints of a run, and how to read them back."""

from fljax.recording.checkpoints import Checkpoints
from fljax.recording.client_plots import plot_clients
from fljax.recording.models import load_model, save_model
from fljax.recording.plots import plot_curves
from fljax.recording.progress import Progress, progress, say
from fljax.recording.recorder import Recorder, Sink
from fljax.recording.runs import Run, load_run
from fljax.recording.summary import (
    best,
    device,
    final,
    host_peak_memory_bytes,
    peak_memory_bytes,
    summarize,
    to_target,
    versions,
)
from fljax.recording.wandb_sink import wandb_sink

__all__ = [
    "Checkpoints",
    "Progress",
    "Recorder",
    "Run",
    "Sink",
    "best",
    "device",
    "final",
    "host_peak_memory_bytes",
    "load_model",
    "load_run",
    "peak_memory_bytes",
    "plot_clients",
    "plot_curves",
    "progress",
    "save_model",
    "say",
    "summarize",
    "to_target",
    "versions",
    "wandb_sink",
]
