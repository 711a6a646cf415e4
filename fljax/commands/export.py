"""Exports a run, for others to run.

    fljax export model runs/first exported
    fljax export model runs/first exported --which=final --onnx --device=raspberry_pi_5
    fljax export flower runs/first flower-app
    fljax export flower runs/first flower-app --data=files --start=final

`model` writes a folder with the weights (safetensors), the program (StableHLO for CPU, CUDA and
TPU, and with --onnx ONNX), `run_model.py`, which needs NumPy and JAX with flatbuffers and no fljax,
all that is known of the model (`model.json`) and its model card, and prints what it costs on
devices of the edge.

`flower` writes a Flower app with the run's model, local training, aggregation and codec of
messages, whose clients are machines of their own. With --data=files the rows of each client are
written to a file, for its node; else nodes load the run's data by their name. Training starts from
the run's initial model, unless --start says final or best.

docs/deployment.md says more of both.
"""

from __future__ import annotations

import warnings

from absl import app, flags

from fljax import commands

_FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of exports."""
    flags.DEFINE_enum("data", "source", ["source", "files"], "Where nodes of an app find rows.")
    flags.DEFINE_enum(
        "start", "initial", ["initial", "final", "best"], "Model of an app's first round."
    )
    flags.DEFINE_enum("which", None, ["best", "final"], "Model; unset: the best if there is one.")
    flags.DEFINE_enum(
        "weights", "arguments", ["arguments", "inside"], "Where the program finds its weights."
    )
    flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "That the program is for.")
    flags.DEFINE_bool("onnx", False, "Write model.onnx as well.")
    flags.DEFINE_multi_string(
        "device", [], "Device of the edge whose costs are shown, and warned of; unset: all."
    )


def main(argv: list[str]) -> int:
    """Exports what the arguments name: KIND RUN OUT."""
    if len(argv) != 4 or argv[1] not in _KINDS:
        raise app.UsageError(f"Write fljax export KIND RUN OUT; kinds are {', '.join(_KINDS)}.")
    _, kind, run, out = argv
    return _KINDS[kind](run, out)


def _flower(run: str, out: str) -> int:
    """Writes a Flower app, and prints where it lies."""
    from fljax.export.flower.app import write_app

    path = write_app(run, out, data=_FLAGS.data, start=_FLAGS.start)
    commands.show(f"Flower app: {path}\nhow it is run: {path / 'README.md'}")
    return 0


def _model(run: str, out: str) -> int:
    """Exports the trained model, and prints what it costs."""
    from fljax.core.digits import amount, figures
    from fljax.export.card import table
    from fljax.export.model import export_model
    from fljax.systems.hardware import HARDWARE, hardware

    chosen = _FLAGS.device or list(HARDWARE)
    for name in chosen:
        hardware(name)
    made = export_model(
        run,
        out,
        which=_FLAGS.which,
        weights=_FLAGS.weights,
        platforms=_FLAGS.platforms,
        to_onnx=_FLAGS.onnx,
    )
    about, work = made.about, made.training.work
    metrics = [
        f"{key.removeprefix('eval/').replace('/', ' ')} {figures(value)}"
        for key, value in about["metrics"].items()
        if key.startswith("eval/test/")
    ]
    commands.show(
        f"the {about['which']} model, of round {about['round']}: {about['scope']}; "
        f"{', '.join(metrics[:2]) or 'not evaluated'}\n"
        f"{made.cost.parameters:,} parameters, {amount(made.cost.weight_bytes, 'B')}; a row takes "
        f"{amount(made.cost.flops, 'FLOP')} and {amount(made.cost.memory, 'B')} of memory"
    )
    if made.onnx is not None:
        written = made.onnx.difference is not None
        text = f"written, differs by {made.onnx.difference:.0e}" if written else "none"
        commands.show(f"ONNX: {text}{f' ({made.onnx.reason})' if made.onnx.reason else ''}")
    commands.show("\n".join(table({name: made.devices[name] for name in chosen})))
    for name in _FLAGS.device:
        if work is not None and work.memory > HARDWARE[name].memory:
            warnings.warn(
                f"Training takes {amount(work.memory, 'B')}, and {name} has "
                f"{amount(HARDWARE[name].memory, 'B')}: train a smaller model or batch.",
                stacklevel=2,
            )
    commands.show(f"exported to {made.directory}; its card is README.md there")
    return 0


_KINDS = {"model": _model, "flower": _flower}
