"""Makes tasks of survival times, of which some are censored: Cox's proportional hazards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fljax.core.metrics import LOSS, Metric, Sum
from fljax.core.task import Measured, Task
from fljax.core.values import Field, checked
from fljax.tasks.batches import only_real
from fljax.tasks.concordance import TIES, concordance, cox_loss
from fljax.tasks.metric_names import chosen
from fljax.tasks.supervised import floats, supervised


def survival(
    model: Any,
    *,
    ties: str = "breslow",
    metrics: Sequence[str] | None = None,
    frozen: Any = None,
    fast_layers: bool = True,
) -> Task:
    """Makes a task of survival times: Cox's partial likelihood, judged by concordance.

    The loss of an example with an event is log(sum of exp(risk) over those at risk then) - risk
    (Cox, 1972), and its mean is over events; a batch without one has neither loss nor gradient.

    In training, those at risk are looked for in the batch: a client compares its own examples
    alone, which is Cox's model stratified by client, and with small batches an approximation to it
    (Kvamme et al., arXiv:1907.00825). With batch_size = 0 a batch holds all of a client's examples.
    The loss of an evaluation, in contrast, is that of all of its examples together, or of all those
    of one client or group, in float64 and whatever the batches. Clients without events have no
    loss, and are left out of tables of clients.

    Args:
      model: As for `classification`; it maps x[B, ...] to one number each, the logarithm of the
        hazard ratio: higher means earlier.
      ties: What events at one time are taken for, "breslow" or "efron" (Efron, 1977).
      metrics: Names of what it is judged by, the one that chooses first; all by default.
      frozen, fast_layers: As for `classification`.

    Returns:
      The task; y is {"time": number[B], "event": 0 or 1 [B]}, 0 where the time is censored, or
      number[B, 2] with these as columns, as tables give them (target=["time", "event"]). Times are
      compared as they are stored: in float32, or as integers.

    Raises:
      ValueError: For other ties, or where outputs and y do not fit.

    Example:
      >>> task = tasks.survival(models.softmax_regression(5, 1))
      >>> [metric.name for metric in task.metrics]
      ['concordance', 'loss']
    """
    ties = checked("ties", ties, Field("breslow", str, TIES))

    def counted(batch):
        time, event = _times(batch)
        return event & batch["mask"]

    def scored(outputs, batch, counts):
        """Returns losses, risks, times, whether there was an event, and the mask, each [B]."""
        mask = jnp.asarray(batch["mask"])
        risks = floats(outputs, mask.shape, "one number for each example, the log hazard ratio")
        risks, time = only_real(mask, risks), only_real(mask, _times(batch)[0])
        losses = _partial_likelihood(risks, time, counts, mask, ties)
        return jnp.where(counts, losses, 0), risks, time, counts, mask

    def measured(scores, counts):
        losses, risks, time, event, mask = scores
        examples = {RISK: risks, TIME: time, EVENT: event.astype(jnp.int32)}
        sums = {name: Sum(value, mask.astype(jnp.int32)) for name, value in examples.items()}
        return Measured({"loss": Sum(losses, counts.astype(jnp.int32)), **sums})

    loss = LOSS._replace(value=lambda sums: cox_loss(*_examples(sums), ties), of_examples=True)
    task = supervised(
        model,
        kind="survival",
        metrics=chosen(metrics, (CONCORDANCE, loss), (CONCORDANCE.name,)),
        scored=scored,
        measured=measured,
        counted=counted,
        frozen=frozen,
        fast_layers=fast_layers,
    )
    return task._replace(problem=_problem, compares_examples=True)


def _times(batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    """Returns times, and whether there was an event, of a batch [B]."""
    found = _columns(batch["y"])
    if found is None:
        y = batch["y"]
        have = ", ".join(sorted(y)) if isinstance(y, Mapping) else f"{y.dtype}{list(y.shape)}"
        raise ValueError(
            'A survival task learns y = {"time": [rows], "event": [rows]}, or [rows, 2] with these '
            f"as columns, and 0 as the event where the time is censored; these data have {have}."
        )
    time, event = (jnp.asarray(each).reshape(len(batch["mask"])) for each in found)
    return time, event > 0


def _columns(y: Any) -> tuple[Any, Any] | None:
    """Returns times and events of y, as both were given; None for anything else."""
    if isinstance(y, Mapping):
        return (y["time"], y["event"]) if set(y) == {"time", "event"} else None
    is_pair = getattr(y, "ndim", 0) == 2 and y.shape[1] == 2
    return (y[:, 0], y[:, 1]) if is_pair else None


def _problem(y: Any, rows: np.ndarray) -> str:
    """Returns what is wrong with events; times may be any numbers."""
    found = _columns(y)
    if found is None:
        return ""  # tracing says so
    event = np.asarray(found[1]).reshape(len(rows))
    wrong = np.flatnonzero((event != 0) & (event != 1))
    if not len(wrong):
        return ""
    return (
        f"an event is {event[wrong[0]]:g} (row {rows[wrong[0]]}), and must be 1 where it was "
        "observed and 0 where the time is censored."
    )


def _partial_likelihood(
    risks: jax.Array, time: jax.Array, event: jax.Array, mask: jax.Array, ties: str
) -> jax.Array:
    """Returns [B], the negative log partial likelihood of each event; of others, any number."""
    own = jnp.eye(len(time), dtype=bool)
    at_risk = (time >= time[:, None]) & mask | own
    whole = _log_sums(risks, at_risk)
    if ties == "efron":
        tied = (time == time[:, None]) & event
        before = jnp.tril(tied, -1).sum(1)
        share = jnp.where(event, before / jnp.maximum(tied.sum(1), 1), 0)
        whole += jnp.log1p(-share * jnp.exp(_log_sums(risks, tied | own) - whole))
    return whole - risks


def _log_sums(risks: jax.Array, chosen: jax.Array) -> jax.Array:
    """Returns [B], log of the sum of exp(risk) over those that each row of bool[B, B] chooses."""
    return jax.nn.logsumexp(jnp.where(chosen, risks, -jnp.inf), axis=1)


RISK, TIME, EVENT = "risk", "time", "event"


def _examples(sums: Mapping[str, Sum]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    real = sums[RISK].weight > 0
    return sums[TIME].value[real], sums[EVENT].value[real], sums[RISK].value[real]


CONCORDANCE = Metric(
    "concordance",
    value=lambda sums: concordance(*_examples(sums)),
    of_examples=True,
    label="Concordance",
)
