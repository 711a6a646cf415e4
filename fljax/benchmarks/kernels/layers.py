"""Times the kernels' forms: `python -m fljax.benchmarks.kernels.layers [--out=FILE.json]`.

Everything runs as local training runs it: inside a compiled loop, one copy on each device at the
same time (a CPU is split into one device per core). "step" is a forward pass with all gradients
that training needs; "with ReLU" the same with what follows the convolution in its model: bias, ReLU
and pooling, which some forms take along. FLOP/s count the multiplications and additions of direct
convolution, whatever the form does, so Winograd's form may exceed the matrix peak: the best product
of large square float32 matrices, measured in the same way. Each client has kernels of its own. "of
the step" is a part's share of a whole local step (forward pass, gradients, SGD) of the model of
`fljax.models` to which its layer belongs, with as many clients.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fljax import models, tasks
from fljax.benchmarks.kernels.timed_loop import matrix_peak, milliseconds
from fljax.core.gradients import bind
from fljax.engine.devices.execution import use_all_cores
from fljax.training.flops import training_flops
from fljax_kernels import conv_relu, lstm
from fljax_kernels.conv import FORMS, conv_general_dilated
from fljax_kernels.lstm import FORMS as LSTM_FORMS
from fljax_kernels.pool import max_pool


class Layer(NamedTuple):
    """A convolution of square images: NHWC, stride 1.

    Attributes:
      size: Height and width of the input.
      channels: Input channels.
      features: Output channels.
      kernel: Height and width of the kernel.
      padding: "SAME" or "VALID".
      first: Whether its input is data, which needs no gradient.
      pool: Whether its model takes maxima of 2x2 windows behind it.
    """

    size: int
    channels: int
    features: int
    kernel: int
    padding: str
    first: bool = False
    pool: bool = False


LAYERS = {
    "EMNIST CNN, first": Layer(28, 1, 32, 3, "VALID", first=True),
    "EMNIST CNN, second": Layer(26, 32, 64, 3, "VALID", pool=True),
    "CIFAR-10 CNN, first": Layer(32, 3, 32, 3, "VALID", first=True),
    "CIFAR-10 CNN, second": Layer(30, 32, 64, 3, "VALID", pool=True),
    "McMahan CNN, first": Layer(28, 1, 32, 5, "SAME", first=True, pool=True),
    "McMahan CNN, second": Layer(14, 32, 64, 5, "SAME", pool=True),
    "LeNet, second": Layer(14, 6, 16, 5, "VALID", pool=True),
    "ResNet, 16 x 16": Layer(16, 128, 128, 3, "SAME"),
}
# the batch of the Shakespeare LSTM: lines of characters
LINES, LENGTH, VOCABULARY, HIDDEN = 4, 80, 90, 256


# of a convolution, in the order of their columns
PARTS = ("forward", "input gradient", "weight gradient", "step", "with ReLU")


def forms(of: Sequence[str] = FORMS) -> tuple[str, ...]:
    """Returns those of a kernel's forms that compute in ways of their own on this machine."""
    others = {"auto"} if jax.default_backend() == "gpu" else {"auto", "pallas"}
    return tuple(form for form in of if form not in others)


def convolution_rows(
    name: str,
    batch: int,
    clients: int,
    chosen: Sequence[str] = (),
    wanted: Sequence[str] = PARTS,
) -> Iterator[dict[str, Any]]:
    """Yields a row for each form that a layer can have: milliseconds of its parts, its rate.

    Args:
      name: Of the layer, in `LAYERS`.
      batch: Rows of a client's batch.
      clients: Clients side by side; 0 is one without that axis.
      chosen: Forms; all that this machine has if empty.
      wanted: Parts, "step" among them.
    """
    layer = LAYERS[name]
    x = jax.random.normal(jax.random.key(0), (batch, layer.size, layer.size, layer.channels))
    kernel = (layer.kernel, layer.kernel, layer.channels, layer.features)
    w = jax.random.normal(jax.random.key(1), kernel) / layer.kernel**2
    for form in chosen or forms():

        def forward(w, x, form=form):
            return conv_general_dilated(
                x, w, (1, 1), layer.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), form=form
            )

        def input_gradient(dy, w, x, forward=forward):
            return jax.vjp(lambda x: forward(w, x), x)[1](dy)

        def weight_gradient(dy, w, x, forward=forward):
            return jax.vjp(lambda w: forward(w, x), w)[1](dy)

        def whole(w, bias, x, form=form):
            return conv_relu(x, w, bias, (1, 1), layer.padding, pool=layer.pool, form=form)

        def step(w, x, forward=forward):
            y, pull_back = jax.vjp(forward, w, x)
            gradients = pull_back(y)
            return y, gradients[:1] if layer.first else gradients

        def relu_step(w, bias, x, whole=whole):
            y, pull_back = jax.vjp(whole, w, bias, x)
            gradients = pull_back(y)
            return y, gradients[:2] if layer.first else gradients

        try:
            y = jax.eval_shape(forward, w, x)
        except ValueError:
            continue  # the form is not for such layers
        dy = jax.random.normal(jax.random.key(2), y.shape)
        parts = {"forward": (forward, w, x), "weight gradient": (weight_gradient, dy, w, x)}
        if not layer.first:
            parts["input gradient"] = (input_gradient, dy, w, x)
        parts |= {"step": (step, w, x), "with ReLU": (relu_step, w, jnp.zeros(layer.features), x)}
        times = {
            part: milliseconds(*call, clients=clients)
            for part, call in parts.items()
            if part in wanted
        }
        operations = 2 * y.size * layer.kernel**2 * layer.channels * max(1, clients)
        operations *= jax.local_device_count() * (2 if layer.first else 3)
        yield {
            "kernel": "convolution",
            "layer": name,
            "form": form,
            "clients": clients,
            "batch": batch,
            "milliseconds": times,
            "gflops": 1e-6 * operations / times["step"],
        }


def client_steps(batch: int) -> dict[str, tuple[Callable, tuple[jax.Array, ...], float]]:
    """Returns whole local steps: {model: (function, its arguments, operations)}."""
    draw = jax.random.split(jax.random.key(0), 4)
    images = (
        jax.random.normal(draw[0], (batch, 28, 28, 1)),
        jax.random.randint(draw[1], (batch,), 0, 62),
    )
    text = tuple(jax.random.randint(key, (LINES, LENGTH), 1, VOCABULARY) for key in draw[2:])
    cnn, direct = (
        tasks.classification(models.emnist_cnn(conv_form=form), 62) for form in ("auto", "grouped")
    )
    lstm = tasks.next_token(models.char_lstm(VOCABULARY), VOCABULARY)
    return {
        "EMNIST CNN": _local_step(cnn, direct, *images),
        "Shakespeare LSTM": _local_step(lstm, lstm, *text),
    }


def lstm_step(form: str, batch: int) -> tuple[Callable, tuple[jax.Array, ...], float]:
    """Returns a whole local step of the Shakespeare LSTM, as `client_steps` does.

    Args:
      form: As in `fljax_kernels.lstm`.
      batch: Lines of characters.
    """
    task = tasks.next_token(models.char_lstm(VOCABULARY, lstm_form=form), VOCABULARY)
    x, y = jax.random.randint(jax.random.key(0), (2, batch, LENGTH), 1, VOCABULARY)
    return _local_step(task, task, x, y)


def _local_step(task, counted, x, y) -> tuple[Callable, tuple[jax.Array, ...], float]:
    """Returns an SGD step, its arguments, and its operations, which are those of another task."""
    params, frozen, state = task.init(jax.random.key(1))
    leaves, tree = jax.tree.flatten(params)

    def step(*args):
        *leaves, x, y = args
        rows = {"x": x, "y": y, "mask": jnp.ones(len(x), bool)}
        gradient, *_ = bind(task, frozen).gradient(
            tree.unflatten(leaves), state, rows, jax.random.key(2)
        )
        slopes = jax.tree.leaves(gradient)
        return [leaf - 0.1 * slope for leaf, slope in zip(leaves, slopes, strict=True)]

    spec = {"x": jax.ShapeDtypeStruct(x.shape[1:], x.dtype)}
    spec["y"] = jax.ShapeDtypeStruct(y.shape[1:], y.dtype)
    return step, (*leaves, x, y), training_flops(counted, spec, len(x))


def step_rows(batch: int, clients: int) -> Iterator[dict[str, Any]]:
    """Yields the whole local steps of the models whose parts are measured."""
    for name, (step, args, operations) in client_steps(batch).items():
        ms = milliseconds(step, *args, clients=clients)
        yield _step_row("whole step", name, "", clients, len(args[-1]), ms, operations)


def _step_row(kernel, layer, form, clients, batch, ms, operations=0.0) -> dict[str, Any]:
    row = {
        "kernel": kernel,
        "layer": layer,
        "form": form,
        "clients": clients,
        "batch": batch,
        "milliseconds": {"step": ms},
    }
    if not operations:
        return row
    return row | {"gflops": 1e-6 * operations * max(1, clients) * jax.local_device_count() / ms}


def other_rows(batch: int, clients: int) -> Iterator[dict[str, Any]]:
    """Yields the steps of what stands beside convolutions: pooling, embedding, recurrence."""

    def row(kernel, layer, form, function, *args, rows, operations=0.0):
        def step(*args):
            y, pull_back = jax.vjp(function, *args)
            return y, pull_back(y)

        ms = milliseconds(step, *args, clients=clients)
        return _step_row(kernel, layer, form, clients, rows, ms, operations)

    def reduce_window(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    x = jax.random.normal(jax.random.key(0), (batch, 24, 24, 64))
    for form, function in {"ours": max_pool, "reduce_window": reduce_window}.items():
        yield row("max-pooling", "EMNIST CNN", form, function, x, rows=batch)

    tokens = jax.random.randint(jax.random.key(1), (LINES, LENGTH), 0, VOCABULARY)
    table = jax.random.normal(jax.random.key(2), (VOCABULARY, 8))
    for form, function in {
        "gather": lambda table: table[tokens],
        "one-hot product": lambda table: jax.nn.one_hot(tokens, VOCABULARY) @ table,
    }.items():
        yield row("embedding", "Shakespeare LSTM", form, function, table, rows=LINES)

    inputs = jax.random.normal(jax.random.key(3), (LENGTH, LINES, HIDDEN))
    kernels = jax.random.normal(jax.random.key(4), (2, HIDDEN, 4 * HIDDEN)) / HIDDEN**0.5
    product = 2.0 * kernels[0].size * LENGTH * LINES
    for form, function in {
        "one for all times": lambda kernel, x: x @ kernel,
        "one for each time": lambda kernel, x: lax.map(lambda at: at @ kernel, x),
    }.items():
        own = {"rows": LINES, "operations": 3 * product}
        yield row("input product", "Shakespeare LSTM", form, function, kernels[0], inputs, **own)
    recurrences = {
        form: lambda x, inward, hidden, form=form: lstm(x @ inward, hidden, form=form)
        for form in forms(LSTM_FORMS)
    }
    for form, function in {**recurrences, "JAX's own gradient": _plain_lstm}.items():
        own = {"rows": LINES, "operations": 6 * product}
        yield row("second layer", "Shakespeare LSTM", form, function, inputs, *kernels, **own)


def _plain_lstm(x, input_kernel, hidden_kernel):
    """The same with all products within the loop, and with the gradient that JAX derives."""

    def advance(state, x):
        output, cell = state
        gates = x @ input_kernel + output @ hidden_kernel
        write, new, forget, read = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget + 1) * cell + jax.nn.sigmoid(write) * jnp.tanh(new)
        output = jax.nn.sigmoid(read) * jnp.tanh(cell)
        return (output, cell), output

    zeros = jnp.zeros((x.shape[1], hidden_kernel.shape[0]), x.dtype)
    return lax.scan(advance, (zeros, zeros), x)[1]


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| layer | form | clients | " + " | ".join(f"{part}, ms" for part in PARTS)
        + " | GFLOP/s | of peak | of the step |",
        "|---" * 11 + "|",
    ]  # fmt: skip
    for row in rows:
        times = [row["milliseconds"].get(part) for part in PARTS]
        cells = [f"{row['kernel']}: {row['layer']}", row["form"], str(row["clients"] or 1)]
        cells += ["" if ms is None else f"{ms:.3f}" for ms in times]
        rate = row.get("gflops")
        cells += ["", ""] if rate is None else [f"{rate:.0f}", f"{row['share_of_peak']:.0%}"]
        share = row.get("share_of_step")
        cells.append("" if share is None else f"{share:.1%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(layers: list[str], batch: int, clients: list[int]) -> dict[str, Any]:
    """Measures everything.

    Args:
      layers: Names in `LAYERS`.
      batch: Rows of a batch.
      clients: Numbers of clients side by side on each device; 0 is one without that axis.
    """
    peak = matrix_peak()
    rows = [
        row for count in clients for name in layers for row in convolution_rows(name, batch, count)
    ]
    rows += [row for count in clients for row in other_rows(batch, count)]
    whole = [row for count in clients for row in step_rows(batch, count)]
    peak = max(peak, matrix_peak())  # a processor may be slower at times
    steps = {(row["layer"], row["clients"]): row["milliseconds"]["step"] for row in whole}
    for row in rows:
        step = steps.get((row["layer"].partition(",")[0], row["clients"]))
        if step is not None:
            row["share_of_step"] = row["milliseconds"]["step"] / step
    rows += whole
    for row in rows:
        if "gflops" in row:
            row["share_of_peak"] = row["gflops"] / peak
    devices = jax.local_devices()
    return {
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "jax": jax.__version__,
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "matrix_peak_gflops": peak,
        "rows": rows,
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints a table, and writes it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument(
        "--clients", nargs="*", type=int, default=[0, 4], help="0: one, without that axis"
    )
    options = parser.parse_args(arguments)
    result = run(options.layers, options.batch, options.clients)
    print(
        f"{result['device']}, jax {result['jax']}, matmul precision {result['matmul_precision']}: "
        f"matrix peak {result['matrix_peak_gflops']:.0f} GFLOP/s"
    )
    print(table(result["rows"]))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    use_all_cores()
    main()
