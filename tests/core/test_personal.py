"""Leaves that are a client's own: texts and functions that choose leaves, of any model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nets import CLASSES, FEATURES, KEY, LinenNet, Net, examples

from fljax import models, tasks
from fljax.core.algorithm import Variables
from fljax.core.gradients import bind
from fljax.core.personal import check_filter, chosen, like_part, part_of, rest_of, together
from fljax.core.trees import leaf_paths


class Normed(nnx.Module):
    """Two kinds of normalization, one of them without a scale, and two without parameters."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(FEATURES, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.norms = nnx.List(
            [
                nnx.BatchNorm(4, use_scale=False, rngs=rngs),
                nnx.LayerNorm(4, use_bias=False, rngs=rngs),
            ]
        )
        self.out = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x, mask=None):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x))
        return self.out(x)


NETWORKS = {
    "net": Net,
    "normed": Normed,
    "linen": tasks.from_linen(LinenNet(), jnp.zeros((1, FEATURES))),
    "mlp": models.mlp((FEATURES, 4, CLASSES)),
}


def variables_of(network):
    task = tasks.classification(NETWORKS[network], CLASSES)
    params, frozen, state = jax.eval_shape(task.init, KEY)
    return bind(task, frozen, like=examples()), Variables(params, state)


def means(part, network):
    """Returns the paths that a filter means."""
    task, variables = variables_of(network)
    mask = chosen("personal", part, task, variables)
    assert jax.tree.structure(mask) == jax.tree.structure(variables)
    paths = leaf_paths(variables.params) + leaf_paths(variables.model_state)
    return {path for path, is_in in zip(paths, jax.tree.leaves(mask), strict=True) if is_in}


NET = {"dense/kernel", "dense/bias", "norm/scale", "norm/bias", "out/kernel", "out/bias"}
STATISTICS = {"norm/mean", "norm/var"}
OUT = {"out/kernel", "out/bias"}
NORMS = {"norms/0/bias", "norms/0/mean", "norms/0/var", "norms/1/scale"}


@pytest.mark.parametrize(
    ("part", "network", "expected"),
    [
        ("head", "net", OUT),
        ("norm", "net", {"norm/scale", "norm/bias"} | STATISTICS),
        ("norm", "normed", NORMS),
        (
            "norm",
            "linen",
            {
                "BatchNorm_0/scale",
                "BatchNorm_0/bias",
                "batch_stats/BatchNorm_0/mean",
                "batch_stats/BatchNorm_0/var",
            },
        ),
        ("BatchNorm_*/mean", "linen", {"batch_stats/BatchNorm_0/mean"}),
        ("norms/1", "normed", {"norms/1/scale"}),
        ("layers/0", "mlp", {"layers/0/kernel", "layers/0/bias"}),
        ("*/bias", "mlp", {"layers/0/bias", "layers/1/bias"}),
        ("layers", "mlp", {f"layers/{n}/{leaf}" for n in (0, 1) for leaf in ("kernel", "bias")}),
        ("dense/bias, head", "net", {"dense/bias"} | OUT),
        ("not head", "net", (NET | STATISTICS) - OUT),
        (" not head,norm ", "net", {"dense/kernel", "dense/bias"}),
        ("all", "net", NET | STATISTICS),
        ("not none", "net", NET | STATISTICS),
        ("none", "net", set()),
        (lambda path, leaf: leaf.ndim == 2, "net", {"dense/kernel", "out/kernel"}),
        (lambda path, leaf: path == "norm/var", "net", {"norm/var"}),
    ],
)
def test_filters_mean_leaves(part, network, expected):
    check_filter("personal", part)
    assert means(part, network) == expected


@pytest.mark.parametrize(
    ("part", "network", "said"),
    [
        ("dence", "net", "'dence', but the model has no parameter of that path.*dense/kernel"),
        ("head, layers/7", "mlp", "'layers/7'.*layers/0/bias, layers/0/kernel"),
        ("norm", "mlp", "no normalization layer .*layers/0/bias"),
        (lambda path: True, "mlp", "cannot be called.*layers/0/bias"),
        (lambda path, leaf: leaf, "mlp", "returned.*layers/0/bias.*True or False"),
    ],
)
def test_filters_that_mean_nothing_are_refused_with_what_there_is(part, network, said):
    with pytest.raises(ValueError, match=f"personal.*{said}"):
        means(part, network)


@pytest.mark.parametrize("part", ["", "head,", "not ", 3, ["head"], True])
def test_what_is_no_filter_is_refused(part):
    with pytest.raises(ValueError, match=r"personal = .*a text such as 'head'"):
        check_filter("personal", part)


def test_parts_make_the_whole_again():
    tree = {"a": [np.ones(2), np.zeros(3)], "b": {"c": np.arange(4)}}
    mask = {"a": [True, False], "b": {"c": False}}
    part, rest = part_of(tree, mask), rest_of(tree, mask)
    assert len(jax.tree.leaves(part)) == 1 and len(jax.tree.leaves(rest)) == 2
    for whole in (together(part, rest), together(rest, part)):
        assert jax.tree.structure(whole) == jax.tree.structure(tree)
        jax.tree.map(np.testing.assert_array_equal, whole, tree)
    jax.tree.map(np.testing.assert_array_equal, like_part(tree, part), part)
    assert jax.tree.structure(like_part(tree, rest)) == jax.tree.structure(rest)
    first = jax.tree.map(lambda leaf: leaf + 1, part)
    np.testing.assert_array_equal(together(first, tree)["a"][0], 2 * np.ones(2))
