"""Transformers against NumPy loops in float64, on weights of files as Hugging Face writes them."""

import math

import jax
import numpy as np
import pytest
from flax import nnx

from fljax import models, tasks
from fljax.core.algorithm import Variables
from fljax.core.safetensors import read_tensors, write_tensors
from fljax.core.weights import named_weights
from fljax.models.attention import rotated
from fljax.recording.export import export_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
VOCAB, PLACES, LAYERS, HEADS, WIDTH = 11, 8, 2, 2, 6
SIZES = {"layers": LAYERS, "heads": HEADS, "width": WIDTH}


def filled(network):
    """Returns a network's parameters, none of which is zero or one; nothing is compiled for it."""
    draw = np.random.default_rng(0).standard_normal
    shapes = jax.eval_shape(network.init, KEY)[0]
    return jax.tree.map(lambda leaf: 0.4 * draw(leaf.shape).astype("f"), shapes)


def outputs(model, x):
    """Returns what a model with filled parameters computes of a batch."""
    network = tasks.from_nnx(model)
    params = filled(network)
    return jax.jit(lambda x: network.apply(params, {}, {}, x, None, False, None)[0])(np.array(x))


def normalized(x, weights, name, epsilon=1e-5):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def attention(qkv, heads, causal):
    """[T, 3 * width] -> [T, width], one head and one place after another."""
    queries, keys, values = np.split(qkv, 3, axis=-1)
    read = np.zeros_like(queries)
    size = queries.shape[1] // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for place in range(len(qkv)):
            seen = slice(0, place + 1 if causal else None)
            weights = softmax(queries[place, part] @ keys[seen, part].T / np.sqrt(size))
            read[place, part] = weights @ values[seen, part]
    return read


def gpt2(weights, tokens):
    """GPT-2 as its authors describe it, of weights by Hugging Face's names: [T] -> [T, vocab]."""

    def layer(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["wte.weight"][tokens] + weights["wpe.weight"][: len(tokens)]
    for number in range(LAYERS):
        at = f"h.{number}"
        qkv = layer(normalized(x, weights, f"{at}.ln_1"), f"{at}.attn.c_attn")
        x = x + layer(attention(qkv, HEADS, causal=True), f"{at}.attn.c_proj")
        h = layer(normalized(x, weights, f"{at}.ln_2"), f"{at}.mlp.c_fc")
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        x = x + layer(h, f"{at}.mlp.c_proj")
    return normalized(x, weights, "ln_f") @ weights["wte.weight"].T


def fake_gpt2():
    """Returns the state dict of a small GPT-2, with the buffers that older files have."""
    draw = np.random.default_rng(0).standard_normal
    shapes = {"wte": (VOCAB, WIDTH), "wpe": (PLACES, WIDTH)}
    for number in range(LAYERS):
        shapes |= {
            f"h.{number}.attn.c_attn": (WIDTH, 3 * WIDTH),
            f"h.{number}.attn.c_proj": (WIDTH, WIDTH),
            f"h.{number}.mlp.c_fc": (WIDTH, 4 * WIDTH),
            f"h.{number}.mlp.c_proj": (4 * WIDTH, WIDTH),
            f"h.{number}.ln_1": (WIDTH,),
            f"h.{number}.ln_2": (WIDTH,),
        }
    shapes["ln_f"] = (WIDTH,)
    weights = {f"{name}.weight": 0.4 * draw(shape) for name, shape in shapes.items()}
    biases = {f"{name}.bias": draw(shape[-1]) for name, shape in shapes.items() if name[0] != "w"}
    return {name: value.astype(np.float32) for name, value in (weights | biases).items()}


def test_gpt2_of_a_file_is_gpt2_and_goes_back_to_its_names(tmp_path):
    weights = fake_gpt2()
    buffers = {"h.0.attn.bias": np.ones((1, 1, PLACES, PLACES), np.float32)}
    in_file = {f"transformer.{name}": value for name, value in (weights | buffers).items()}
    in_file["lm_head.weight"] = weights["wte.weight"]
    write_tensors(tmp_path / "gpt2.safetensors", in_file, {"format": "pt"})
    model = models.gpt(VOCAB, (PLACES,), **SIZES)
    network = tasks.from_nnx(models.with_weights(model, tmp_path / "gpt2.safetensors"))
    params, _, _ = jax.jit(network.init)(KEY)
    tokens = np.random.default_rng(1).integers(0, VOCAB, (3, PLACES - 1))
    logits = jax.jit(lambda x: network.apply(params, {}, {}, x, None, False, None)[0])(tokens)
    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    expected = np.stack([gpt2(exact, each) for each in tokens])
    np.testing.assert_allclose(logits, expected, rtol=2e-5, atol=2e-5)
    trained = Variables(params, {})
    path = export_weights(tmp_path / "back.safetensors", trained, names="gpt2")
    again = read_tensors(path)[0]
    assert again.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(again[name], value)


@pytest.mark.parametrize(
    "make, count",
    [
        (lambda layers: models.gpt(50257, layers=layers, heads=12, width=768), 124_439_808),
        (
            lambda layers: models.vit(
                1000, (224, 224, 3), patch=16, layers=layers, heads=12, width=768, pooling="token"
            ),
            86_567_656,
        ),
    ],
)
def test_models_of_published_sizes_have_as_many_parameters(make, count):
    single, double = (
        sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param)))
        for shapes in (nnx.eval_shape(lambda n=n: make(n)(nnx.Rngs(0))) for n in (1, 2))
    )
    assert single + 11 * (double - single) == count


def test_vit_is_its_definition(tmp_path):
    model = models.vit(3, (4, 6, 2), patch=2, pooling="token", **SIZES)
    network = tasks.from_nnx(model)
    params = filled(network)
    paths = jax.tree_util.tree_leaves_with_path(params)
    flat = {tuple(key.key for key in path): np.asarray(leaf, float) for path, leaf in paths}
    weights = named_weights(flat, "torch")

    def layer(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def forward(image):
        rows = [image[i : i + 2, j : j + 2].ravel() for i in (0, 2) for j in (0, 2, 4)]
        x = np.concatenate([weights["token"][None], layer(np.stack(rows), "patches")])
        x = x + weights["positions"]
        for number in range(LAYERS):
            at = f"blocks.{number}"
            qkv = layer(normalized(x, weights, f"{at}.norm1", 1e-6), f"{at}.attention.qkv")
            x = x + layer(attention(qkv, HEADS, causal=False), f"{at}.attention.out")
            h = layer(normalized(x, weights, f"{at}.norm2", 1e-6), f"{at}.up")
            erf = np.vectorize(math.erf)(h / np.sqrt(2))
            x = x + layer(0.5 * h * (1 + erf), f"{at}.down")
        return layer(normalized(x[0], weights, "norm", 1e-6), "head")

    x = np.random.default_rng(2).standard_normal((2, 4, 6, 2)).astype("f")
    logits = jax.jit(lambda x: network.apply(params, {}, {}, x, None, False, None)[0])(x)
    expected = [forward(image.astype(float)) for image in x]
    np.testing.assert_allclose(logits, expected, rtol=2e-5, atol=2e-5)


def test_a_causal_model_reads_no_later_place_and_no_padding():
    sizes = {"layers": 1, "heads": 2, "width": 8, "positions": "rotary", "tied": False}
    examples = [[3, 0, 4, 5, 1, 2], [3, 0, 4, 5, 7, 2], [3, 8, 4, 5, 1, 2]]
    found = outputs(models.gpt(9, (6,), pad_id=0, **sizes), examples)
    as_it_is, later_changed, no_padding = found
    np.testing.assert_array_equal(as_it_is[:4], later_changed[:4])
    assert (np.abs(as_it_is[4:] - later_changed[4:]).max(-1) > 1e-3).all()
    np.testing.assert_array_equal(as_it_is[0], no_padding[0])
    assert (np.abs(as_it_is[2:] - no_padding[2:]).max(-1) > 1e-3).all()


def test_a_model_of_masked_tokens_reads_both_sides():
    model = models.gpt(10, (4,), causal=False, pad_id=0, layers=1, heads=1, width=4)
    as_it_is, changed = outputs(model, [[3, 9, 4, 0], [3, 9, 5, 0]])
    assert (np.abs(as_it_is - changed).max(-1) > 1e-4).all()


def test_an_encoder_is_the_same_whatever_padding_lies_between():
    model = models.make("transformer_encoder(vocab=9, layers=1, heads=1, width=4)", 3, (5,))
    network = tasks.from_nnx(model)
    params = filled(network)
    places = params["trunk"]["positions"]["embedding"]
    places[3:5] = places[1:3]
    apply = jax.jit(lambda x: network.apply(params, {}, {}, x, None, False, None)[0])
    behind, between, empty = apply(np.array([[1, 2, 3, 0, 0], [1, 0, 0, 2, 3], [0] * 5]))
    np.testing.assert_allclose(behind, between, rtol=1e-5, atol=1e-6)
    assert np.isfinite(empty).all()


def test_products_of_rotated_vectors_depend_on_distances():
    x = np.random.default_rng(0).standard_normal(4).astype("f")
    turned = np.asarray(jax.jit(rotated)(np.broadcast_to(x, (1, 6, 1, 4))))[0, :, 0]
    gram = turned @ turned.T
    for distance in range(6):
        np.testing.assert_allclose(np.diag(gram, distance), gram[0, distance], rtol=1e-5)
    np.testing.assert_array_equal(turned[0], x)


@pytest.mark.parametrize(
    "name, shape, problem",
    [
        ("gpt(heads=3, width=16)", (8,), r"heads = 3 must divide width = 16.* 15 would do"),
        ("gpt(length=4)", (8,), "length = 4 is below the 8 tokens"),
        ("gpt(heads=4, width=12, positions='rotary')", (8,), "even number"),
        ("gpt(positions='sine')", (8,), "positions = 'sine' is not one of 'learned'"),
        ("gpt(dropout=1)", (8,), "dropout = 1"),
        ("gpt", (8, 8, 1), "sequences of tokens"),
        ("transformer_encoder", (8,), "needs vocab"),
        ("vit(patch=3)", (8, 8, 1), "patch = 3 must divide .* 8 x 8"),
        ("vit(patch=9)", (8, 8, 1), "at least 9 x 9"),
        ("vit(pooling='max')", (8, 8, 1), "pooling = 'max'"),
        ("vit", (64,), "needs images"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name, shape, problem):
    with pytest.raises(ValueError, match=problem):
        models.make(name, 5, shape)


def test_longer_examples_than_positions_are_refused():
    network = tasks.from_nnx(models.gpt(5, (3,), layers=1, heads=1, width=4))
    params = filled(network)
    with pytest.raises(ValueError, match="have 4 tokens, and the model has positions for 3"):
        network.apply(params, {}, {}, np.ones((1, 4), int), None, False, None)
