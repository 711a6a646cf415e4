"""Checkpoints: bit for bit, whole or not at all."""

import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fljax.recording import Checkpoints


def make_state(seed=0):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(3, 4)).astype(np.float32), "b": (np.zeros(2, np.float32),)}
    bits = rng.integers(0, 2**16, 8, dtype=np.uint16)
    return {
        "params": params,
        "optimizer": optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
        "store": [rng.normal(size=(0, 5)), rng.normal(size=4)],
        "bfloat16": bits.view(jnp.bfloat16),
        "special": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "integers": (np.int32(-7), rng.integers(0, 2**63, 3), np.array(4, np.uint64)),
        "key": jax.random.key_data(jax.random.key(seed)),
        "flag": np.array(True),
        "round": 2**70,
        "ratio": 0.1,
        "done": False,
        "nothing": None,
        "empty": optax.EmptyState(),
    }


def assert_same_bits(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if isinstance(b, bool | int | float) and not isinstance(b, np.generic):
            assert type(a) is type(b) and a == b
        else:
            b = np.asarray(b)
            assert isinstance(a, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape
            assert a.tobytes() == b.tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with checkpoints of rounds 10 and 20."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(directory) as checkpoints:
        for round in (5, 10, 20):
            checkpoints.save(round, make_state(round), {"bytes": 2**80, "plan": {"lanes": 4}})
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_round_trip_is_bit_exact_and_keeps_the_newest(saved):
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.rounds() == [10, 20]
        assert checkpoints.newest_whole() == 20
        for round in (10, 20):
            state, metadata = checkpoints.restore(round, make_state(99))
            assert_same_bits(state, make_state(round))
            assert metadata == {"bytes": 2**80, "plan": {"lanes": 4}}


def test_a_template_of_shapes_serves(saved):
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "shape") else x,
        make_state(),
    )
    with Checkpoints(saved) as checkpoints:
        assert_same_bits(checkpoints.restore(20, template)[0], make_state(20))


def test_the_state_may_be_donated_right_after_saving(tmp_path):
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    device, host = jnp.arange(200_000.0), np.arange(200_000.0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"device": device, "host": host})
        overwrite(device).block_until_ready()
        host[:] = -1
        state, _ = checkpoints.restore(
            1, {"device": overwrite(jnp.arange(200_000.0)), "host": host}
        )
    np.testing.assert_array_equal(state["device"], np.arange(200_000.0))
    np.testing.assert_array_equal(state["host"], np.arange(200_000.0))


def test_an_interrupted_save_leaves_the_one_before(directory):
    shutil.copytree(directory / "20", directory / "30.orbax-checkpoint-tmp")
    shutil.copytree(directory / "20", directory / "40")
    shutil.rmtree(directory / "40" / "arrays")
    (directory / "50").mkdir()
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.newest_whole() == 20
        assert_same_bits(checkpoints.restore(20, make_state())[0], make_state(20))
        for round in (30, 40):
            checkpoints.save(round, make_state(round))
        assert_same_bits(checkpoints.restore(40, make_state())[0], make_state(40))
    assert {path.name for path in directory.iterdir()} == {"30", "40"}


def test_a_saved_round_is_left_as_it_is(directory):
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(20, make_state(7))
        assert_same_bits(checkpoints.restore(20, make_state())[0], make_state(20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"ratio": np.zeros(3, np.float32)},
            r"\['ratio'\]: a Python float .* float32\[3\] in this",
        ),
        ({"special": np.zeros(5)}, r"\['special'\]: float64\[4\] in .*, float64\[5\] in this run"),
        ({"flag": np.array(1)}, r"\['flag'\]: bool\[\] in the checkpoint, int64\[\] in this run"),
        ({"more": np.zeros(1)}, r"\['more'\]: absent in the checkpoint, float64\[1\] in this run"),
        ({"optimizer": optax.sgd(0.1).init({})}, "mu.*absent in this run"),
        ({"optimizer": None, "params": None, "store": None}, "and 4 more"),
    ],
)
def test_a_state_of_another_configuration_is_refused(saved, change, message):
    with Checkpoints(saved) as checkpoints, pytest.raises(ValueError, match=message) as error:
        checkpoints.restore(20, make_state() | change)
    assert "another configuration" in str(error.value) and "config.json" in str(error.value)


def test_a_missing_round_is_named(saved, tmp_path):
    with Checkpoints(saved) as checkpoints, pytest.raises(FileNotFoundError, match=r"\[10, 20\]"):
        checkpoints.restore(15, make_state())
    with Checkpoints(tmp_path / "empty") as checkpoints:
        assert checkpoints.newest_whole() is None


@pytest.mark.parametrize("leaf", [jax.random.key(0), "text", np.array(["a"]), object()])
def test_leaves_that_are_no_numbers_are_refused(tmp_path, leaf):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(TypeError, match=r"\['odd'\]"):
        checkpoints.save(1, {"odd": leaf})


@pytest.mark.parametrize("state", [{}, {"count": 3}, {"rows": np.zeros((0, 2))}])
def test_a_state_without_stored_arrays(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        assert_same_bits(checkpoints.restore(1, state)[0], state)


def test_saving_is_silent_where_the_program_logs(tmp_path, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="absl")  # commands ask for less
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state())
        checkpoints.restore(1, make_state())
        logging.getLogger("absl").info("the user's own line")
    assert [r.message for r in caplog.records if r.name == "absl"] == ["the user's own line"]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
