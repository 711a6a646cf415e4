"""What a run would do and cost, found out without running it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fljax.data.dataset import FederatedDataset
from fljax.engine.batching import LocalWork, steps_per_job
from fljax.federation import RoundOptions, local_work, make_sampler, plan_execution
from fljax.gradients import bind
from fljax.tasks import Task


def describe(dataset: FederatedDataset, task: Task, options: RoundOptions) -> str:
    """Returns clients, steps, FLOPs, memory and execution plan of a run as a text.

    FLOPs are XLA's count for the gradient of one full batch of one client, times the steps; no data
    is placed on a device, and nothing is compiled or run.
    """
    sizes = dataset.train.partition.sizes
    sampler = make_sampler(dataset, options)
    work = local_work(sizes, options)
    steps = steps_per_job(sizes, work)
    params, _, _ = jax.eval_shape(task.init, jax.random.key(0))
    execution = plan_execution(dataset, sampler, params, steps, options)
    cohort = min(options.clients_per_round, dataset.num_clients)
    steps_a_round = steps.mean() * cohort
    flops = _flops_of_a_step(dataset, task, work) * steps_a_round
    param_count = sum(leaf.size for leaf in jax.tree.leaves(params))
    param_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    data_bytes = dataset.train.examples.nbytes
    live = execution.lanes * 6 * param_bytes + execution.wave * 2 * param_bytes
    rows = [
        ("dataset", f"{dataset.name}, {sizes.sum():,} training rows"),
        (
            "clients",
            f"{dataset.num_clients:,}, rows min {sizes.min():,} / median {int(np.median(sizes)):,}"
            f" / max {sizes.max():,}",
        ),
        ("rounds", f"{options.num_rounds:,} of {cohort:,} clients"),
        ("local steps", f"{steps.mean():.1f} a client, {steps_a_round:,.0f} a round"),
        ("parameters", f"{param_count:,} ({param_bytes / 1e6:.2f} MB)"),
        ("FLOPs", f"{flops / 1e9:,.2f} GFLOP a round, {_large(flops * options.num_rounds)} in all"),
        (
            "communication",
            f"{_size(cohort * param_bytes)} a round each way, "
            f"{_size(2 * cohort * param_bytes * options.num_rounds)} in all",
        ),
        (
            "memory",
            f"data {_size(data_bytes)} ({execution.placement}), training about {_size(live)} "
            "a device",
        ),
        (
            "execution",
            f"{execution.devices} {jax.default_backend()} device(s) x {execution.lanes} lane(s), "
            f"waves of {execution.wave}",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _flops_of_a_step(dataset: FederatedDataset, task: Task, work: LocalWork) -> float:
    """Returns the floating-point operations of one gradient, as XLA counts them."""

    def gradient(params, frozen, model_state, batch, key):
        local = bind(task, frozen, dataset.preprocess)
        return local.gradient(params, model_state, batch, key)[0]

    variables = jax.eval_shape(task.init, jax.random.key(0))
    batch = {
        name: jax.ShapeDtypeStruct((work.batch_size, *spec.shape), spec.dtype)
        for name, spec in dataset.train.examples.spec.items()
    }
    batch["mask"] = jax.ShapeDtypeStruct((work.batch_size,), jnp.bool_)
    key = jax.eval_shape(lambda: jax.random.key(0))
    cost = jax.jit(gradient).lower(*variables, batch, key).cost_analysis()
    return float((cost or {}).get("flops", np.nan))


def _size(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


def _large(flops: float) -> str:
    return f"{flops / 1e12:,.2f} TFLOP" if flops >= 1e12 else f"{flops / 1e9:,.2f} GFLOP"
