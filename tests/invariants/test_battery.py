"""Tiny and odd federations in the compilation that users get, against independent results."""

import battery
import pytest

# At these a compiler option once made SCAFFOLD wrong.
SCAFFOLD = [
    battery.Case(
        "scaffold", None, "sgd", "no code", "none", model, shape, (4, 9, 6, 2), 1, 2, 1, 1, 1,
        "float32", 1, 1, "device",
    )
    for model, shape in (("products", (2, 2)), ("nnx", (8, 2)))
]  # fmt: skip
# Held against the float64 loops, in few cases. The last shape has weights that are held transposed;
# where several lanes exchange together, as on accelerators, they wait for each other, or are all
# replaced.
LOOPS = battery.covering(
    5,
    algorithm=battery.AXES["algorithm"],
    shape=((1, 2), (3, 5), (130, 2)),
    sizes=((4, 9, 6, 2), (1, 1, 3, 1), (5, 0, 1, 7)),
    batch=battery.AXES["batch"],
    lanes=battery.AXES["lanes"],
    exchange=battery.AXES["exchange"],
    dtype=("float32", "float64"),
    model=("products", "entries", "nnx"),
    memory=("no code",),
    downlink=("none",),
)
# Held against the same rounds on other lanes, compiled in another way: a case for each memory of
# the uplink; all memories of the downlink and numbers of lanes are among them, and no single class,
# which learns nothing.
COMPRESSED = [
    case._replace(model=model)
    for case, model in zip(
        battery.covering(
            165,
            memory=("none", "error_feedback", "ef21", "diana", "marina(0.4)"),
            algorithm=("fedavg",),
            model=("mlp",),
            trials=(1,),
        ),
        ("mlp", "products", "entries", "nnx", "products"),
        strict=True,
    )
]
# What waits keeps its momentum and the statistics of its batches.
WAITING = battery.covering(
    momentum=(0.9,), model=("norm",), exchange=(2,), lanes=(3,), algorithm=("fedavg",),
    sizes=((4, 9, 6, 2),), memory=("no code",), downlink=("none",), trials=(1,), shape=((3, 5),),
    devices=(1,),
)  # fmt: skip


def _name(case):
    layout = f"{case.lanes} {case.exchange}"
    return f"{case.algorithm} {case.memory} {case.model} {case.shape} {layout} {case.dtype}"


@pytest.mark.parametrize("case", SCAFFOLD + LOOPS + COMPRESSED + WAITING, ids=_name)
def test_results_do_not_depend_on_the_compiler(case):
    assert battery.wrong(case) is None
