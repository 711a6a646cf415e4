"""Fast layers: the same function, parameters and names, whatever a convolution is asked for."""

import re

import card
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import linen, nnx
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fljax
import fljax_kernels
from fljax import algorithms, models, tasks
from fljax.config.dry_run import describe
from fljax.core.fast_layers import named, relu_of
from fljax.models import with_fast_convolutions
from fljax.training.federation import RoundOptions

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(5)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.conv(x))


class Own(nnx.Conv):
    """A subclass, which might do anything with its function."""


class Net(nnx.Module):
    """Convolutions of every kind, in lists, one block twice."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)
        block = Block(rngs)
        self.blocks = nnx.List([block, Block(rngs), block])
        self.up = nnx.ConvTranspose(4, 4, (2, 2), strides=(2, 2), rngs=rngs)
        self.depthwise = nnx.Conv(4, 4, 3, feature_group_count=4, rngs=rngs)
        self.space = nnx.Conv(4, 4, (1, 2, 2), rngs=rngs)
        self.subclass = Own(4, 4, (1, 1), rngs=rngs)
        self.own = nnx.Conv(4, 2, (1, 1), conv_general_dilated=own, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.up(x)
        x = self.depthwise(x.reshape(x.shape[0], -1, 4)).reshape(x.shape)
        x = self.space(x[:, None])[:, 0]
        return self.own(self.subclass(x))


def own(*args, **options):
    return jax.lax.conv_general_dilated(*args, **options)


LAX, OURS = jax.lax.conv_general_dilated, fljax_kernels.conv_general_dilated
REPLACED = {"stem", "blocks/0/conv", "blocks/1/conv", "depthwise"}


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def check(fast, plain):
    x, outputs = images(2, 8, 8, 1), nnx.jit(lambda model, x: model(x))
    np.testing.assert_allclose(outputs(fast, x), outputs(plain, x), rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(fast), nnx.state(plain))
    for layer in (fast.stem, fast.depthwise, *(block.conv for block in fast.blocks)):
        assert layer.conv_general_dilated is OURS
    assert fast.blocks[0] is fast.blocks[2]
    assert fast.space.conv_general_dilated is fast.subclass.conv_general_dilated is LAX
    assert fast.own.conv_general_dilated is own


def outputs_and_gradients(network, params, state, x):
    def total(params, x):
        outputs = network.apply(params, {}, state, x, None, False, None)[0]
        return jnp.sum(jnp.sin(outputs.astype(jnp.float32))), outputs

    return jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, x)


def check_network(model, x, **tolerances):
    """Compares a network with that of the module as it is; returns the names of what is fast."""
    fast, plain = tasks.from_nnx(model), tasks.from_nnx(model, fast_layers=False)
    started, expected = (network.init(KEY) for network in (fast, plain))
    jax.tree.map(np.testing.assert_array_equal, started, expected)
    params, _, state = started
    got, wanted = (outputs_and_gradients(network, params, state, x) for network in (fast, plain))
    assert jax.tree.map(jnp.result_type, got) == jax.tree.map(jnp.result_type, wanted)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), **tolerances
        ),
        got,
        wanted,
    )
    assert plain.replaced_layers == ()
    return fast.replaced_layers


def test_networks_of_modules_are_fast_by_themselves():
    tolerances = {"rtol": 1e-4, "atol": 1e-4}
    names = check_network(Net, images(2, 8, 8, 1), **tolerances)
    assert set(names) == REPLACED and len(names) == len(REPLACED)
    made = Net(nnx.Rngs(0))
    assert tasks.classification(made, 2).replaced_layers == names
    assert made.stem.conv_general_dilated is LAX
    assert tasks.next_token(Net, 2, fast_layers=False).replaced_layers == ()
    assert tasks.from_nnx(models.mlp((4, 3))).replaced_layers == ()
    already = tasks.from_nnx(with_fast_convolutions(Net, "gemm"))
    assert already.replaced_layers == ()


# its cases are small as they are
@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data(), axes=st.sampled_from([1, 2, 2]))
def test_whatever_a_convolution_is_asked_for_its_results_stay(data, axes):
    draw = lambda *choices: data.draw(st.sampled_from(choices))  # noqa: E731
    each = lambda most: tuple(data.draw(st.integers(1, most)) for _ in range(axes))  # noqa: E731
    groups, size = draw(1, 1, 2, 4), each(3)
    channels, features = 4, 4 * draw(1, 2)
    pad = draw("SAME", "VALID", "CIRCULAR", "REFLECT", "SAME_LOWER", 1, "pairs", "CAUSAL")
    if pad == "pairs":
        pad = [(data.draw(st.integers(0, 2)), 1) for _ in range(axes)]
    if pad == "CAUSAL" and axes > 1:
        pad = "SAME"
    mask = None
    if draw(False, True):
        mask = jnp.asarray(images(*size, channels // groups, features) > 0, jnp.float32)

    def model(rngs):
        return nnx.Conv(
            channels, features, size, each_stride, padding=pad, input_dilation=spacing,
            kernel_dilation=dilation, feature_group_count=groups, mask=mask,
            use_bias=use_bias, precision=precision, rngs=rngs,
        )  # fmt: skip

    each_stride, dilation = each(2), each(2)
    # XLA's own convolution takes no padding by name where inputs are spaced
    spacing = (1,) * axes if isinstance(pad, str) else each(2)
    use_bias, precision = draw(True, False), draw(None, "highest", jax.lax.Precision.HIGH)
    batch = draw((), (2,), (2, 3))
    x = images(*batch, *(7,) * axes, channels)
    assert check_network(model, x, rtol=1e-3, atol=1e-4) == ("",)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": jnp.bfloat16},
        {"param_dtype": jnp.bfloat16},
        {"param_dtype": jnp.float16, "dtype": jnp.float32},
        {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(3,), (3, 3)])
def test_dtypes_stay(size, options):
    model = lambda rngs: nnx.Conv(3, 4, size, rngs=rngs, **options)  # noqa: E731
    names = check_network(model, images(2, *(6,) * len(size), 3), rtol=0.05, atol=0.05)
    assert names == ("",)


class Signals(nnx.Module):
    """A convolution over the toy's features as a signal in time."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3,), rngs=rngs)
        self.out = nnx.Linear(3 * toy.FEATURES, toy.CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv(x[..., None]))
        return self.out(x.reshape(x.shape[0], -1))


ROUNDS = {"num_rounds": 1, "clients_per_round": 2}


def test_runs_say_what_was_replaced_and_end_where_others_do(tmp_path, capsys):
    def run(fast_layers, **options):
        return fljax.simulate(
            toy.dataset(toy.clients(dtype=np.float32)),
            Signals,
            algorithms.fedavg(0.1),
            fast_layers=fast_layers,
            num_rounds=2, clients_per_round=4, batch_size=4, devices=1, lanes=1, seed=0, **options,
        )  # fmt: skip

    fast, plain = run(True, workdir=tmp_path / "run"), run(False, progress=False)
    said = "fast layers in place of Flax's own: conv (fast_layers=False keeps those)\n"
    assert said in capsys.readouterr().err
    assert fast.config["replaced_layers"] == ["conv"] and plain.config["replaced_layers"] == []
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        fast.variables.params,
        plain.variables.params,
    )
    for fast_layers in (True, False):
        task = tasks.classification(Signals, toy.CLASSES, fast_layers=fast_layers)
        options = RoundOptions(num_rounds=2, clients_per_round=4)
        text = describe(toy.dataset(toy.clients()), task, algorithms.fedavg(0.1), options)
        said = re.search(r"^fast layers +conv$", text, re.MULTILINE)
        assert bool(said) is fast_layers
    with pytest.raises(ValueError, match=r"replaced_layers was \['conv'\] and is \[\]"):
        run(False, workdir=tmp_path / "run", resume=True)


def test_a_switch_that_is_none_is_refused():
    with pytest.raises(ValueError, match="fast_layers = 'no'"):
        tasks.classification(Net, 2, fast_layers="no")
    with pytest.raises(ValueError, match="fast_layers = 'no'"):
        fljax.simulate(toy.dataset(toy.clients()), Net, fast_layers="no", **ROUNDS)


def test_a_switch_that_comes_too_late_or_is_misspelled_is_refused():
    task = tasks.classification(Signals, toy.CLASSES)
    with pytest.raises(ValueError, match="no effect: the model is a task already. Leave it out"):
        fljax.simulate(toy.dataset(toy.clients()), task, fast_layers=False, **ROUNDS)
    with pytest.raises(TypeError, match="Did you mean fast_layers?"):
        fljax.simulate(toy.dataset(toy.clients()), Signals, fast_layer=False, **ROUNDS)


def test_many_names_are_counted():
    assert named(("",)) == "the model"
    assert named(list("abcdef")) == "a, b, c, d and 2 more"


def test_a_module_is_copied():
    plain = Net(nnx.Rngs(0))
    fast = with_fast_convolutions(plain)
    check(fast, plain)
    assert plain.stem.conv_general_dilated is LAX


def test_a_factory_stays_one():
    check(with_fast_convolutions(Net)(nnx.Rngs(3)), Net(nnx.Rngs(3)))


@pytest.mark.parametrize("make", [models.emnist_cnn, models.resnet18_gn])
def test_a_form_is_chosen_for_a_whole_model(make):
    options = {} if make is models.emnist_cnn else {"width": 2, "groups": 1}
    plain, formed, again = (
        make(3, (8, 8, 2), **options, **form)
        for form in ({}, {"conv_form": "grouped"}, {"conv_form": "grouped"})
    )
    x = images(2, 8, 8, 2)
    networks = [tasks.from_nnx(model) for model in (plain, formed)]
    params, _, state = networks[0].init(KEY)

    def outputs(network, x):
        return network.apply(params, {}, state, x, None, False, None)[0]

    compiled = jax.jit(outputs, static_argnums=0)
    first, second = (compiled(network, x) for network in networks)
    np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-5)
    assert networks[0].replaced_layers and not networks[1].replaced_layers
    ours, theirs = (str(jax.make_jaxpr(outputs, static_argnums=0)(each, x)) for each in networks)
    assert "conv_general_dilated" in theirs and "conv_general_dilated" not in ours
    modules = [model(nnx.Rngs(0)) for model in (plain, formed, again)]
    assert nnx.graphdef(modules[1]) != nnx.graphdef(modules[0])
    assert nnx.graphdef(modules[1]) == nnx.graphdef(modules[2])


def test_models_by_name_take_a_form_and_refuse_unknown_ones():
    models.make("lenet_cnn", 3, (16, 16, 1), conv_form="gemm")
    with pytest.raises(ValueError, match="form = 'winogard' is not one of 'auto'"):
        models.make("lenet_cnn", 3, (16, 16, 1), conv_form="winogard")


@pytest.mark.parametrize("size", [(3,), (3, 3)])
def test_linen_modules_are_given_the_function(size):
    x = images(2, *(6,) * len(size), 2)
    plain, fast = (
        linen.Conv(4, size, **options) for options in ({}, {"conv_general_dilated": OURS})
    )
    network, other = tasks.from_linen(plain, x), tasks.from_linen(fast, x)
    params = network.init(KEY)[0]
    first, second = (outputs_and_gradients(each, params, {}, x) for each in (network, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), first, second)


def test_linen_modules_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match="conv_general_dilated=fljax_kernels"):
        with_fast_convolutions(linen.Conv(4, (3, 3)))


class Pooled(nnx.Module):
    """Two convolutions that may be one kernel each with what follows them, and one that may not."""

    def __init__(self, rngs):
        self.first = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.second = nnx.Conv(4, 5, (3, 3), padding="VALID", rngs=rngs)
        self.strided = nnx.Conv(5, 3, (2, 2), strides=2, rngs=rngs)

    def __call__(self, x):
        x = relu_of(self.second, relu_of(self.first, x), pool=True)
        return relu_of(self.strided, x).mean((1, 2))


def test_the_form_of_kernels_takes_along_what_follows_a_convolution():
    x = jax.random.normal(jax.random.key(1), (3, 9, 8, 2))

    def step(form):
        network = tasks.from_nnx(with_fast_convolutions(Pooled, form))
        params, *rest = network.init(KEY)

        def loss(params):
            outputs, _ = network.apply(params, *rest, x, KEY, True, None)
            return (outputs**2).sum()

        return jax.jit(jax.value_and_grad(loss)), params

    run, params = step("pallas")
    toy.assert_close(run(params), step("gemm")[0](params), 1e-5)
    # on a card: a kernel for each result and gradient, none for the gradient of the images
    assert card.kernels(card.lowered(run, params)) == 8
