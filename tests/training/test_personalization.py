"""The layout of clients' own evaluation: batches of one client each, whatever the sizes."""

import numpy as np
import pytest

from fljax.data.dataset import ArrayExamples, Partition, Split, offsets_of
from fljax.engine.devices.execution import make_mesh
from fljax.training.personalization import prepare


def split(sizes, seed):
    """Returns a split whose row r holds r, shuffled among clients."""
    rows = np.random.default_rng(seed).permutation(sum(sizes) + 5)[: sum(sizes)]
    examples = ArrayExamples({"x": np.arange(sum(sizes) + 5, dtype=np.float32)})
    return Split(examples, Partition(offsets_of(np.array(sizes)), rows))


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("clients", [[0], [1, 2], [0, 1, 3, 5, 6]])
def test_every_held_out_row_is_read_once_with_its_client(devices, batch_size, clients):
    # client 6 has nothing to train on, and is the last one
    train, held_out = split((3, 1, 7, 2, 9, 4, 0), 0), split((5, 1, 9, 8, 0, 2, 6), 1)
    made = prepare(train, held_out, np.array(clients), make_mesh(devices), batch_size)
    batches, own = made.inputs.held_out, made.inputs.own
    arrays = batches.staged["x"], made.inputs.place, made.inputs.first
    x, place, first = map(np.asarray, arrays)
    counts = np.asarray(batches.counts)
    real = np.arange(x.shape[-1]) < counts[..., None]
    np.testing.assert_array_equal(real, made.owners >= 0)
    for client in clients:
        expected = held_out.partition.rows(client)
        np.testing.assert_array_equal(x[made.owners == client], expected)
    assert real.sum() == held_out.partition.sizes[clients].sum()
    owners = made.owners.max(-1)
    for device, step in zip(*np.nonzero(counts), strict=True):
        assert made.clients[device, place[device, step]] == owners[device, step]
        new = step == 0 or owners[device, step] != owners[device, step - 1]
        assert first[device, step] == new
    assert not first[counts == 0].any()
    sizes, rows = np.asarray(own.counts), np.asarray(own.staged["x"])
    for device, number in np.ndindex(*made.clients.shape):
        mine = train.partition.rows(made.clients[device, number])
        assert sizes[device, number] == len(mine)
        # what stands behind them are the same rows again, evenly
        if len(mine):
            np.testing.assert_array_equal(rows[device, number], np.resize(mine, rows.shape[-1]))
