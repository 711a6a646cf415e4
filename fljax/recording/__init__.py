"""Records, summary, plots and checkpoints of a run, and how to read them back."""

from fljax.recording.checkpoints import Checkpoints
from fljax.recording.client_plots import plot_clients
from fljax.recording.mlflow_sink import mlflow_sink
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
from fljax.recording.tensorboard_sink import tensorboard_sink
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
    "mlflow_sink",
    "peak_memory_bytes",
    "plot_clients",
    "plot_curves",
    "progress",
    "save_model",
    "say",
    "summarize",
    "tensorboard_sink",
    "to_target",
    "versions",
    "wandb_sink",
]
