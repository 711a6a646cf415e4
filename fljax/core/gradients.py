"""The gradient estimator: a task bound to its frozen constants, as algorithms see it.

The estimator is a slot: `plain` differentiates the mean loss of a batch; estimators that clip per
example or split the batch have the same signature.

Here, and only here, training leaves float32, where a run asks for it: parameters, constants and
inputs are cast inside the loss. Whatever differentiates that loss gets its gradients in the
parameters' own dtype back, since the transpose of a cast is the cast back. (Micikevicius et al.,
arXiv:1710.03740, call the float32 parameters a master copy; bfloat16 has the exponents of float32,
so that no loss scaling is needed: Kalamkar et al., arXiv:1905.12322.)

A gradient in bfloat16 is that of float32 to less than 1 %, in every leaf (the sums it is made of,
such as those of biases, accumulate in float32), as long as nothing in the model switches. ReLU and
max-pooling do. Of McMahan's CNN, at its start and on noise, 0.1 to 0.3 % of them choose otherwise
than in float64, which makes errors of 0.5 % (last layer), 4 %, 5 % and 11 % (first layer). With the
choices of float64 they are 0.5 % everywhere; float32 with bfloat16's choices errs as bfloat16 does;
and with nothing but the inputs of products in bfloat16, they are the same. Training on noise lets
such differences grow: after two rounds of 15 steps a client, bfloat16 is off by 30 % of the way
that float32 has gone, and float32 from a start rounded to bfloat16 by 31 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fljax.core.representation import head_of, with_representation
from fljax.core.task import Measured, Task
from fljax.core.values import shown
from fljax.core.wide_sums import with_wide_sums
from fljax_kernels.ordered import together

PyTree = Any

COMPUTE_DTYPES = ("float32", "bfloat16")


class LossSums(NamedTuple):
    """Summed loss of a batch and the number of its targets (real rows, or tokens)."""

    loss: jax.Array
    weight: jax.Array


class Population(NamedTuple):
    """Sizes of a population that shapes depend on, known to an algorithm before it trains.

    Attributes:
      num_clients: N; the clients of jobs are 0 to N - 1.
      num_groups: How many values the first of the data set's groups of clients has; 0 without.
      num_classes: Of the targets, or None.
      row_groups: {name: how many values} of the groups of rows, which batches have as "groups".
    """

    num_clients: int = 1
    num_groups: int = 0
    num_classes: int | None = None
    row_groups: Mapping[str, int] = {}


class LocalTask(NamedTuple):
    """A task inside the round program.

    Attributes:
      gradient: (params, model_state, batch, key) -> (gradient of the batch's mean loss, LossSums,
        model_state').
      loss: (params, model_state, batch, key, train) -> (LossSums, model_state').
      measure: (params, model_state, batch) -> fljax.core.task.Measured.
      state_changes: Whether clients send what has changed in a model's state, and not the state:
        transforms for privacy bound what is sent, and a state as a whole is no small number.
      representation: (params, model_state, batch, key, train) -> (float[B, ...], LossSums,
        model_state'): what the model's last layer reads, beside what `loss` returns, of one pass
        through the model; see `fljax.core.representation`. Models without such a layer are refused.
      head: (params, model_state) -> pytree of bools like `params`: which are that last layer's.
      population: Sizes, for servers that hold a number for each client or group; None where an
        algorithm is built for its structure alone.
      outputs: (params, model_state, batch) -> the model's outputs in evaluation mode, of tasks that
        have them.
      judge: (outputs, batch) -> Measured, of outputs that were made in another way.
      targets: (batch) -> what the task sees as y.
      num_classes: As in a `Task`.
      like: Shapes of a batch; None where nobody knows the data.
    """

    gradient: Callable[..., tuple[PyTree, LossSums, PyTree]]
    loss: Callable[..., tuple[LossSums, PyTree]]
    measure: Callable[..., Measured]
    state_changes: bool = False
    representation: Callable[..., tuple[jax.Array, LossSums, PyTree]] | None = None
    head: Callable[[PyTree, PyTree], PyTree] | None = None
    population: Population | None = None
    outputs: Callable[..., PyTree] | None = None
    judge: Callable[..., Measured] | None = None
    targets: Callable[[PyTree], PyTree] | None = None
    num_classes: int | None = None
    like: Mapping[str, Any] | None = None


def plain(loss: Callable) -> Callable:
    """Returns the gradient of a batch's mean loss over its real rows."""

    def gradient(params, model_state, batch, key):
        def mean_loss(params):
            sums, new_state = loss(params, model_state, batch, key, True)
            return sums.loss / jnp.maximum(sums.weight, 1), (sums, new_state)

        grads, (sums, new_state) = jax.grad(mean_loss, has_aux=True)(params)
        # the loss reads parameters as well
        grads, loss_sum = together((grads, sums.loss))
        return grads, sums._replace(loss=loss_sum), new_state

    return gradient


def bind(
    task: Task,
    frozen: PyTree,
    preprocess: Callable[[dict], dict] | None = None,
    estimator: Callable[[Callable], Callable] = plain,
    compute_dtype: str = "float32",
    state_changes: bool = False,
    like: Mapping[str, Any] | None = None,
    population: Population | None = None,
) -> LocalTask:
    """Binds a task to its frozen constants, its data's preprocessing and an estimator.

    Args:
      task: The task.
      frozen: Constants of the model.
      preprocess: As in `FederatedDataset`.
      estimator: (loss) -> gradient, such as `plain`.
      compute_dtype: "float32" computes in the parameters' own dtype. "bfloat16" casts parameters,
        constants and floating-point inputs in `loss` and `gradient`; `model_state`, loss sums and
        gradients keep their dtypes, sums within a gradient accumulate in float32, and `measure` is
        as with "float32". See above for how near gradients are to those of float32.
      state_changes, population: As in a `LocalTask`.
      like: Shapes of a batch of the data, of any size and before `preprocess`; `head` needs them.

    Raises:
      ValueError: For another dtype.
    """
    if compute_dtype not in COMPUTE_DTYPES:
        raise ValueError(
            f"compute_dtype = {compute_dtype!r}; choose {' or '.join(map(repr, COMPUTE_DTYPES))}."
        )
    lower = _to_bfloat16 if compute_dtype == "bfloat16" else lambda tree: tree
    constants = lower(frozen)

    def prepared(batch):
        if preprocess is None:
            return batch
        beside = {name: batch[name] for name in ("mask", "size", "groups") if name in batch}
        return preprocess({k: v for k, v in batch.items() if k not in beside}) | beside

    def losses(params, x, model_state, batch, key, train):
        batch = {**batch, "x": lower(x)}
        found = task.loss(lower(params), constants, model_state, batch, key, train)
        (values, weights), new_state = checked_loss(found, batch["mask"])
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        return values, weights, new_state

    def loss(params, model_state, batch, key, train):
        batch = prepared(batch)
        values, weights, new_state = losses(params, batch["x"], model_state, batch, key, train)
        return _sums(values, weights), new_state

    def representation(params, model_state, batch, key, train):
        batch = prepared(batch)
        represented = with_representation(partial(losses, train=train))
        found, values, weights, new_state = represented(params, batch["x"], model_state, batch, key)
        found = found.astype(jnp.promote_types(found.dtype, jnp.float32))
        return found, _sums(values, weights), new_state

    def head(params, model_state):
        if like is None:
            raise ValueError(
                "The head of a model is found with the shapes of a batch: bind(like=)."
            )
        batch = jax.eval_shape(prepared, dict(like))
        evaluated = partial(losses, key=None, train=False)
        return head_of(evaluated, params, batch["x"], model_state, batch)

    def measure(params, model_state, batch):
        return task.measure(params, frozen, model_state, prepared(batch))

    def outputs(params, model_state, batch):
        return task.apply(params, frozen, model_state, prepared(batch)["x"])

    def judge(outputs, batch):
        return task.judge(outputs, prepared(batch))

    gradient = estimator(loss)
    if compute_dtype == "bfloat16":
        gradient = with_wide_sums(gradient)
    return LocalTask(
        gradient,
        loss,
        measure,
        state_changes,
        representation,
        head,
        population,
        outputs=None if task.apply is None else outputs,
        judge=None if task.judge is None else judge,
        targets=lambda batch: prepared(batch)["y"],
        num_classes=task.num_classes,
        like=like,
    )


def _sums(values: jax.Array, weights: jax.Array) -> LossSums:
    return LossSums(values.sum(), weights.sum().astype(values.dtype))


def checked_loss(found: Any, mask: jax.Array) -> tuple[tuple[jax.Array, jax.Array], PyTree]:
    """Returns what a task's loss returned.

    Args:
      found: ((value, weight), model_state').
      mask: bool[B].

    Raises:
      ValueError: For anything but a value and a weight of each of the B examples, and a state.

    Example:
      >>> checked_loss(((jnp.ones(2), jnp.ones(2)), {}), jnp.array([True, True]))[1]
      {}
    """
    match found:
        case ((value, weight), _) if jnp.shape(value) == jnp.shape(weight) == mask.shape:
            return found
    shapes = jax.tree.map(lambda leaf: list(jnp.shape(leaf)), found)
    raise ValueError(
        f"A task's loss returns ((value, weight), model_state), value and weight of shape "
        f"{list(mask.shape)}, one of each example and no mean over them; this one returned "
        f"{shown(shapes)}."
    )


def _to_bfloat16(tree: PyTree) -> PyTree:
    """Returns the tree with its floating-point leaves cast; integers stay."""

    def cast(leaf):
        leaf = jnp.asarray(leaf)
        return leaf.astype(jnp.bfloat16) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)
