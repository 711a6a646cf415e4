"""Compiles round programs for an H100 on this machine, and counts what the card would do.

python scripts/compiled_for_gpu.py --workloads=softmax_1000,cifar10_cnn_50 --out=now.json
python scripts/compiled_for_gpu.py --workloads=emnist_cnn_100 --lanes=32 --exchange_size=8
python scripts/compiled_for_gpu.py --workloads=softmax_100 --algorithm=scaffold
python scripts/compiled_for_gpu.py --workloads=cifar10_cnn_50 --form=pallas --fused_updates
python scripts/compiled_for_gpu.py --workloads=softmax_100 --uplink='top_k(0.01) + error_feedback'

What has to be installed, `fljax/benchmarks/gpu/compiled.py` says; JAX_PLATFORMS=cpu keeps JAX from
looking for a card. Milliseconds follow from launches, bytes and operations.
"""

from fljax import commands

commands.begin()  # it answers for what the imports below do

import json
from pathlib import Path

import jax
from absl import app, flags

from fljax import algorithms
from fljax.benchmarks.gpu import compiled, program_figures
from fljax.benchmarks.round_cost import links_of
from fljax.benchmarks.workloads import find, make_model, make_task, varied
from fljax.core.files import atomic_file
from fljax.recording import say

_WORKLOADS = flags.DEFINE_list("workloads", ["softmax_1000"], "Names of workloads.")
_LANES = flags.DEFINE_integer("lanes", 0, "Lanes; 0 leaves them to the rule.", lower_bound=0)
_COHORT = flags.DEFINE_integer("cohort", 0, "Clients a round; 0: the workload's.", lower_bound=0)
_EXCHANGE = flags.DEFINE_integer(
    "exchange_size", 0, "Lanes that exchange at once; 0 leaves them to the rule.", lower_bound=0
)
_ALGORITHM = flags.DEFINE_string("algorithm", "fedavg", "An algorithm by name.")
_UPLINK = flags.DEFINE_string("uplink", "none", "A compressor, and behind a plus its memory.")
_DTYPE = flags.DEFINE_string("compute_dtype", "float32", "Type that steps compute in.")
_FORM = flags.DEFINE_string("form", "auto", "Form of convolutions, or of a recurrence.")
_FUSED = flags.DEFINE_bool("fused_updates", False, "Whether dense layers update in their kernels.")
_XLA = flags.DEFINE_multi_string("xla", [], "NAME=VALUE: a further option of XLA.")
_POOL = flags.DEFINE_integer("pool", 1000, "Examples that data are drawn from.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for the figures.")
_KEEP = flags.DEFINE_string("keep", None, "Folder for the compiled modules, as text.")


def main(argv):
    if problem := compiled.missing():
        raise app.UsageError(f"This machine cannot compile for an H100: {problem}.")
    rows = []
    for name in _WORKLOADS.value:
        rows.append(_figures(name))
        say(f"\n{name}\n\n{program_figures.loop_table(rows[-1])}\n")
        if _OUT.value:
            with atomic_file(Path(_OUT.value)) as file:
                file.write(json.dumps(rows, indent=1).encode() + b"\n")
    commands.show(program_figures.table(rows))
    return 0


def _figures(name):
    workload = varied(find(name), pool=_POOL.value, cohort=_COHORT.value, form=_FORM.value)
    task = make_task(workload, make_model(workload))
    params, _, _ = jax.eval_shape(task.init, jax.random.key(0))
    found = compiled.compile_workload(
        workload,
        algorithms.make(_ALGORITHM.value, client_lr=workload.client_lr),
        exchange_size=_EXCHANGE.value,
        compiler_options=dict(option.split("=", 1) for option in _XLA.value),
        lanes=_LANES.value,
        compute_dtype=_DTYPE.value,
        fused_updates=_FUSED.value,
        pipeline=links_of(_UPLINK.value, params, workload.population),
    )
    if _KEEP.value:
        folder = Path(_KEEP.value)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.hlo").write_text(found.program.hlo)
        (folder / f"{name}.thunks").write_text(found.program.thunks)
    return program_figures.describe(name, found)


if __name__ == "__main__":
    commands.execute(main)
