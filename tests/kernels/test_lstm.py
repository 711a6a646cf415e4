"""The forms of the LSTM's recurrence against a NumPy loop over times, and its exact slopes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fljax_kernels.lstm import lstm

pytestmark = pytest.mark.usefixtures("quick_compilation")
# without a card "pallas" is "blocks"
FORMS = ("scan", "blocks", "pallas")
BATCH, HIDDEN = 2, 3


def definition(gates, kernel):
    """[T, B, 4 * hidden] -> [T, B, hidden], of real or complex numbers."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    output = cell = np.zeros((gates.shape[1], kernel.shape[0]))
    outputs = []
    for at in gates:
        write, new, forget, read = np.split(at + output @ kernel, 4, axis=-1)
        cell = sigmoid(forget + 1) * cell + sigmoid(write) * np.tanh(new)
        output = sigmoid(read) * np.tanh(cell)
        outputs.append(output)
    return np.stack(outputs)


def drawn(times, seed=0):
    generator = np.random.default_rng([times, seed])
    shapes = (times, BATCH, 4 * HIDDEN), (HIDDEN, 4 * HIDDEN), (times, BATCH, HIDDEN)
    return [generator.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("times", [1, 5, 16, 37])
def test_values_and_slopes_are_those_of_the_definition(form, times, x64):
    """Also where the times are fewer than a block has, and where blocks leave a remainder."""
    gates, kernel, weights = drawn(times)

    def total(gates, kernel):
        outputs = lstm(gates, kernel, form=form)
        return (weights * outputs).sum(), outputs

    (_, outputs), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(
        gates, kernel
    )
    np.testing.assert_allclose(outputs, definition(gates, kernel), rtol=1e-12, atol=1e-13)
    generator = np.random.default_rng(0)
    for moved, gradient in enumerate(gradients):
        direction = generator.standard_normal(gradient.shape)
        arguments = [gates, kernel]
        # a step along the imaginary axis cancels no digit
        arguments[moved] = arguments[moved] + 1e-30j * direction
        slope = (weights * definition(*arguments)).sum().imag / 1e-30
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 5e-2)])
def test_forms_agree_for_clients_side_by_side(dtype, tolerance):
    clients = [jnp.stack(arrays) for arrays in zip(drawn(20), drawn(20, 1), strict=True)]
    gates, kernels, weights = (array.astype(dtype) for array in clients)

    def gradients(form):
        def total(gates, kernel, weights):
            return (weights * lstm(gates, kernel, form=form)).astype(jnp.float32).sum()

        return jax.jit(jax.vmap(jax.grad(total, (0, 1))))(gates, kernels, weights)

    for ours, other in zip(gradients("scan"), gradients("blocks"), strict=True):
        assert ours.dtype == other.dtype == dtype
        ours, other = (np.asarray(leaf, np.float64) for leaf in (ours, other))
        np.testing.assert_allclose(ours, other, atol=tolerance * np.abs(ours).max())


@pytest.mark.parametrize(("platform", "form"), [("cpu", "scan"), ("gpu", "blocks")])
def test_the_platform_chooses_the_form(platform, form, monkeypatch):
    arguments = drawn(20)[:2]
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    chosen, expected = (
        str(jax.make_jaxpr(partial(lstm, form=name))(*arguments)) for name in ("auto", form)
    )
    assert chosen == expected


def test_unknown_forms_are_refused():
    with pytest.raises(
        ValueError, match="form = 'loop'; choose one of 'auto', 'scan', 'blocks', 'pallas'"
    ):
        lstm(*drawn(1)[:2], form="loop")
