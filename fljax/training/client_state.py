"""Initializes and stores the state that clients keep from round to round."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fljax.core import transforms as links
from fljax.core.algorithm import Algorithm, Variables, sent_params
from fljax.core.transforms import Pipeline, PipelineSpec, as_configured
from fljax.core.trees import batched
from fljax.engine.devices.distributed import allgather
from fljax.engine.devices.execution import host_memory_bytes, memory_of
from fljax.engine.program.inputs import ClientRows
from fljax.engine.store.client_store import ClientStore


def default_rows(
    algorithm: Algorithm, pipeline: Pipeline | PipelineSpec, variables: Variables
) -> ClientRows:
    """Returns the state of clients that never took part, NumPy leaves [S, ...] like `variables`."""

    def default(variables):
        return default_row(algorithm, pipeline, variables)

    trials = len(jax.tree.leaves(variables)[0])
    _refuse_keys(jax.eval_shape(batched(default, trials), variables))
    return jax.device_get(jax.jit(batched(default, trials))(variables))


def _refuse_keys(row: ClientRows) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(row):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"What a client keeps has a PRNG key at {jax.tree_util.keystr(path)}. A job has "
                "its own, of seed, round and client: derive keys from job.key, or keep "
                "jax.random.key_data(key)."
            )


def default_row(
    algorithm: Algorithm, pipeline: Pipeline | PipelineSpec, variables: Variables
) -> ClientRows:
    """Returns the state of a client that never took part, of one trial."""
    own = () if algorithm.init_client is None else algorithm.init_client(variables)
    params = sent_params(algorithm, variables)
    return ClientRows(own, links.init_client(as_configured(pipeline), params))


def make_store(default: ClientRows, num_clients: int, mesh: Mesh, largest: int) -> ClientStore:
    """Makes the client store for at most `largest` participations, on the devices if it fits.

    Args:
      default: State of clients that never took part, leaves [S, ...].
      num_clients: Size of the population.
      mesh: The devices.
      largest: The most participations.

    Raises:
      ValueError: If the machine's memory does not hold the state of so many clients.
    """
    leaves = jax.tree.leaves(default)
    rows = min(num_clients * max((len(leaf) for leaf in leaves), default=1), largest)
    needed = rows * sum(leaf[0].nbytes for leaf in leaves)
    host, memory = min(allgather(host_memory_bytes())), memory_of(mesh)
    if needed > host:
        raise ValueError(
            f"The state that {rows:,} clients keep needs {needed / 1e9:.2f} GB, and the machine "
            f"has {host / 1e9:.2f} GB. Use fewer clients or rounds, or a smaller model."
        )
    on_host = mesh.local_devices[0].platform != "cpu" and needed > memory // 4 * mesh.size
    return ClientStore(default, num_clients, mesh, on_host=on_host, most_rows=rows)


def check_rounds_per_dispatch(rounds: int, store: ClientStore) -> None:
    """Refuses several rounds a dispatch where clients keep rows, which pass between the rounds."""
    if rounds > 1 and store.row_bytes:
        raise ValueError(
            f"rounds_per_dispatch = {rounds}, but clients of this algorithm or uplink keep state, "
            "which is read and written between rounds. Leave it at 1."
        )
