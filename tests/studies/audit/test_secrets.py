"""Secrets in a language model: who holds them, and that copies expose them."""

import numpy as np
from flax import nnx

from fljax import algorithms, data, tasks
from fljax.config.experiment import Experiment
from fljax.studies.audit.secrets import exposed_secrets, with_secrets
from fljax.studies.audit.settings import make_audit


class Bigrams(nnx.Module):
    """Tells a token from the one before it."""

    def __init__(self, rngs):
        self.table = nnx.Embed(16, 16, rngs=rngs)

    def __call__(self, x):
        return self.table(x)


def texts():
    draw = np.random.default_rng(0)
    rows = draw.integers(1, 16, (60, 15))
    return data.from_arrays(
        rows[:, :-1], rows[:, 1:], client_ids=np.repeat(np.arange(6), 10), kind="next_token",
        num_classes=16,
    )  # fmt: skip


def test_secrets_are_rows_of_one_client_each():
    dataset = texts()
    secrets = np.arange(1, 13)[None] + np.arange(3)[:, None]
    own = with_secrets(dataset, secrets.astype(np.int32), np.array([1, 4, 2]), seed=0)
    before, after = dataset.train.partition, own.train.partition
    added = after.sizes - before.sizes
    assert added.sum() == 7 and after.num_rows == 67
    holders = []
    for secret, copies in zip(secrets, (1, 4, 2), strict=True):
        held = own.train.examples.arrays["y"][after.all_rows()][:, :11] == secret[1:]
        found = held.all(1) & (own.train.examples.arrays["x"][after.all_rows(), 0] == secret[0])
        owners = after.owners()[found]
        assert len(owners) == copies and len(set(owners)) == 1
        holders.append(owners[0])
    counts = np.bincount(holders, weights=[1, 4, 2], minlength=6)
    np.testing.assert_array_equal(added, counts)
    for client in range(6):
        mine = set(before.rows(client))
        assert mine <= set(after.rows(client))


def test_copies_expose_secrets():
    dataset = texts()
    task = tasks.make("next_token", Bigrams, 16, dataset.spec)
    options = {"num_rounds": 12, "clients_per_round": 6, "local_epochs": 2, "batch_size": 10}
    plain = Experiment(dataset, task, algorithms.fedavg(client_lr=3.0), options)
    assert exposed_secrets(plain, make_audit({})) is None
    found = exposed_secrets(plain, make_audit({"secrets": 6}))
    exposure = {copies: np.mean(bits) for copies, bits in found["exposure"].items()}
    assert list(exposure) == ["1", "4", "16"] and found["tokens"] == 15
    assert exposure["16"] > exposure["4"] > exposure["1"] and exposure["16"] > 4
