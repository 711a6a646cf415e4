"""Writes the model card of an exported model: README.md beside its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fljax.core.digits import amount, figures
from fljax.core.durations import duration
from fljax.export.costs import DeviceCost
from fljax.systems.hardware import HARDWARE
from fljax.systems.roofline import REACHED

if TYPE_CHECKING:
    from fljax.export.model import Export


def card(made: Export) -> str:
    """Returns the model card as Markdown.

    Args:
      made: What was exported.
    """
    about = made.about
    config = about["config"]
    title = f"{config.get('model') or about['task']['kind']} on {about['data']['name']}"
    return "\n".join(
        [
            f"# {title}",
            "",
            f"Trained by federated learning, simulated with fljax {about['fljax']}: the "
            f"{about['which']} model, of round {about['round']}; {about['scope']}.",
            "",
            "| evaluation | |",
            "| --- | --- |",
            *(f"| {key.removeprefix('eval/')} | {figures(value)} |"
              for key, value in about["metrics"].items() if _is_shown(key)),
            "",
            *_use(made),
            *_training(made),
            *_costs(made),
            "## Licence",
            "",
            about["licence"],
            "",
        ]
    )  # fmt: skip


def _is_shown(key: str) -> bool:
    """Returns whether a figure is on the card; model.json has them all."""
    split, _, name = key.removeprefix("eval/").partition("/")
    return split in ("test", "val") or (split == "clients" and name in ("mean", "p10", "worst"))


def _use(made: Export) -> list[str]:
    about = made.about
    files = ["`model.safetensors`: weights by name", "`model.json`: all that is known of the model",
             "`model.stablehlo`, as text `model.mlir`: the program for "
             f"{', '.join(about['platforms'])}",
             "`check.npz`: random rows and their outputs"]  # fmt: skip
    if made.onnx is not None and made.onnx.difference is not None:
        files.append(
            f"`model.onnx`: for ONNX Runtime, which differs by {made.onnx.difference:.0e} of the "
            "largest output"
        )
    return [
        "## Use",
        "",
        "```bash",
        f"pip install 'jax>={about['jax']}' flatbuffers",
        "python run_model.py --check            # same outputs as where it was exported?",
        "python run_model.py rows.npy out.npy",
        "```",
        "",
        f"Inputs: {_shapes(about['inputs'])}. Outputs: {_shapes(about['outputs'])}. "
        f"Preprocessing: {about['preprocessing']}. Data: "
        f"{about['data']['about'] or 'see model.json'} The model is in evaluation mode.",
        *([] if about["rows"] == "batch" else ["", f"One row at a time: {about['rows_note']}"]),
        *([] if made.onnx is None or not made.onnx.reason else ["", f"ONNX: {made.onnx.reason}"]),
        "",
        *(f"- {file}" for file in files),
        "",
    ]


def _shapes(described: Any) -> str:
    """Returns what an array is, or several are, in words."""
    if "dtype" in described and "shape" in described:
        return f"{described['dtype']}[{', '.join(map(str, described['shape']))}]"
    return ", ".join(f"{name} {_shapes(each)}" for name, each in described.items())


def _training(made: Export) -> list[str]:
    config = made.about["config"]
    keys = ("dataset", "partition", "num_clients", "clients_per_round", "num_rounds", "algorithm",
            "local_epochs", "local_steps", "batch_size", "client_lr", "uplink", "privacy",
            "seed")  # fmt: skip
    said = [f"{key} {config[key]}" for key in keys if config.get(key) not in (None, "none")]
    return ["## Training", "", f"{'; '.join(said) or 'See model.json'}.", ""]


def _costs(made: Export) -> list[str]:
    cost, work = made.cost, made.training.work
    xla = "" if cost.xla_flops is None else f" (XLA counts {amount(cost.xla_flops, 'FLOP')} in all)"
    lines = [
        "## Costs",
        "",
        f"{cost.parameters:,} parameters, {amount(cost.weight_bytes, 'B')}. One row takes "
        f"{amount(cost.flops, 'FLOP')} of products{xla} and {amount(cost.memory, 'B')} of memory.",
    ]
    if work is not None:
        counted = made.training.xla_flops
        xla = "" if counted is None else f" (XLA counts {amount(counted, 'FLOP')} in all)"
        lines.append(
            f"A client's round is {work.steps:.1f} local steps of {amount(work.flops, 'FLOP')}{xla}"
            f", {amount(work.memory, 'B')} of memory, {amount(work.downlink_bytes, 'B')} received "
            f"and {amount(work.uplink_bytes, 'B')} sent."
        )
    factor = max(reached.factor for reached in REACHED.values())
    return [
        *lines,
        "",
        "Estimates by a roofline, none of them measured: within a factor of "
        f"{factor:.0f} either way.",
        "",
        *table(made.devices),
        "",
        *([] if not made.training.unknown else [f"Training: {made.training.unknown}", ""]),
    ]


def table(devices: dict[str, DeviceCost]) -> list[str]:
    """Returns what a model asks of devices as the lines of a table in Markdown."""
    rows = ["| device | a row | energy | a round of training | energy | transfer |",
            "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, cost in devices.items():
        row, joules = "does not fit", ""
        if cost.inference_fits:
            note = "" if cost.dtype == "float32" else f", if in {cost.dtype}"
            row = duration(cost.inference.seconds) + note
            joules = amount(cost.inference.joules, "J")
        rows.append(f"| {name} | {row} | {joules} | {' | '.join(_round(name, cost))} |")
    return rows


def _round(name: str, cost: DeviceCost) -> tuple[str, str, str]:
    found = cost.training
    if found is None:
        return "", "", ""
    transfer = duration(found.transfer_seconds)
    if found.training is None:
        return "does not train", "", ""
    if not found.fits:
        return f"does not fit into {amount(HARDWARE[name].memory, 'B')}", "", transfer
    return duration(found.training.seconds), amount(found.joules, "J"), transfer
