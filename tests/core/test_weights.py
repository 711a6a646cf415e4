"""Weights of files go where their names say, the right way round, or are refused with a list."""

import jax
import numpy as np
import pytest
from flax import linen, nnx
from flax.linen.initializers import zeros

from fljax import models, tasks
from fljax.core.safetensors import write_tensors
from fljax.core.weights import load_weights, named_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

LEAVES = {
    ("conv", "kernel"): (5, 3, 2, 4),
    ("conv", "bias"): (4,),
    ("norm", "scale"): (4,),
    ("norm", "mean"): (4,),
    ("embed", "embedding"): (7, 4),
    ("head", "kernel"): (4, 3),
}
ZEROS = {path: np.zeros(shape, np.float32) for path, shape in LEAVES.items()}


def drawn(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_state_dicts_of_pytorch_are_turned_round():
    torch = {
        "module.conv.weight": drawn((4, 2, 5, 3)),  # outputs, inputs, height, width
        "module.conv.bias": drawn(4),
        "module.norm.weight": drawn(4),
        "module.norm.running_mean": drawn(4),
        "module.norm.num_batches_tracked": np.array(3),
        "module.embed.weight": drawn((7, 4)),
        "module.head.weight": drawn((3, 4)),
    }
    found = load_weights(torch, ZEROS)
    kernel = torch["module.conv.weight"]
    for place in np.ndindex(5, 3, 2, 4):
        height, width, inputs, outputs = place
        assert found["conv", "kernel"][place] == kernel[outputs, inputs, height, width]
    np.testing.assert_array_equal(found["head", "kernel"], torch["module.head.weight"].T)
    np.testing.assert_array_equal(found["norm", "scale"], torch["module.norm.weight"])
    np.testing.assert_array_equal(found["norm", "mean"], torch["module.norm.running_mean"])
    back = named_weights(found, "torch")
    assert {f"module.{name}" for name in back} == torch.keys() - {"module.norm.num_batches_tracked"}
    for name, value in back.items():
        np.testing.assert_array_equal(value, torch[f"module.{name}"], strict=True)


@pytest.mark.parametrize("names", ["fljax", "torch"])
def test_names_of_our_own_are_found_again(names):
    leaves = {path: drawn(shape) for path, shape in LEAVES.items()}
    found = load_weights(named_weights(leaves, names), ZEROS)
    assert found.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(found[path], leaf, strict=True)


def test_names_are_changed_before_they_are_looked_up():
    weights = {"encoder.w": drawn(2), "encoder.deep.w": drawn(3), "optimizer.w": drawn(4)}
    leaves = {("body", "w"): np.zeros(2), ("w",): np.zeros(3)}

    def renamed(name):
        if name.startswith("optimizer"):
            return None
        return {"encoder.w": "body.w"}.get(name, "w")

    by_beginning = {"encoder.": "body.", "encoder.deep.": ""}
    del weights["optimizer.w"]
    for rename in (renamed, by_beginning):
        found = load_weights(weights, leaves, rename=rename)
        np.testing.assert_array_equal(found["w",], weights["encoder.deep.w"])
    with pytest.raises(ValueError, match="the name 'w' to two arrays"):
        load_weights(weights, leaves, rename=lambda name: "w")


def test_everything_that_does_not_fit_is_said_at_once(tmp_path):
    weights = {"head.kernel": drawn((4, 5)), "norm.scale": np.arange(4), "more": drawn(1)}
    path = tmp_path / "weights.safetensors"
    write_tensors(path, weights)
    with pytest.raises(ValueError) as refusal:
        load_weights(path, ZEROS)
    for said in (
        str(path), "without conv.kernel, conv.bias, norm.mean, embed.embedding", "left over: more",
        "head.kernel is [4, 5], and [4, 3] is wanted", "norm.scale is int64, and float32 is wanted",
    ):  # fmt: skip
        assert said in str(refusal.value)
    for said in ("of other shapes: head.kernel", "of other types: norm.scale is int64"):
        assert said in str(refusal.value)
    with pytest.raises(ValueError, match="not finite: w has 1 numbers .* float32. Save finite"):
        load_weights({"w": np.array([1e300])}, {("w",): np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match="names = 'pytorch' is not one of 'fljax', 'torch'"):
        load_weights(weights, ZEROS, names="pytorch")
    with pytest.raises(ValueError, match="new = 'tail' means no weights.* conv/kernel"):
        load_weights(weights, ZEROS, new="tail")


def test_new_layers_start_as_the_model_draws_them():
    network = tasks.from_nnx(models.mlp((4, 3, 2)))
    weights = {"layers.0.weight": drawn((3, 4)), "layers.0.bias": drawn(3)}
    other_head = {"layers.1.weight": drawn((9, 3)), "layers.1.bias": drawn(9)}
    started = tasks.from_nnx(
        models.with_weights(models.mlp((4, 3, 2)), weights | other_head, new="layers/1")
    )
    key = jax.random.key(5)
    trees = jax.jit(lambda key: [each.init(key)[0]["layers"] for each in (network, started)])(key)
    own, found = trees
    np.testing.assert_array_equal(found["0"]["kernel"], weights["layers.0.weight"].T)
    np.testing.assert_array_equal(found["1"]["kernel"], own["1"]["kernel"])


def test_modules_linen_and_functions_start_from_weights_too():
    weights = {"kernel": drawn((4, 3)), "bias": drawn(3)}
    plain = (lambda key: jax.tree.map(np.zeros_like, weights), lambda params, x: x)
    module = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    made = models.with_weights(module, weights)
    assert isinstance(made, nnx.Linear) and made is not module
    others = (plain, tasks.from_linen(linen.Dense(3, kernel_init=zeros), np.zeros((2, 4), "f")))
    networks = [tasks.from_nnx(made), *(models.with_weights(other, weights) for other in others)]
    for network in networks:
        params, _, _ = network.init(jax.random.key(0))
        jax.tree.map(np.testing.assert_array_equal, params, weights)
