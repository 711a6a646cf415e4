"""Examples of a few clients: images as a picture, tokens as texts, everything else as numbers."""

from __future__ import annotations

import numpy as np
import pytest

from fljax import data


def test_images_are_drawn_a_client_a_row(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (30, 5, 6, 3), np.uint8)
    ids = np.repeat([7, 8, 9], [20, 9, 1])
    dataset = data.from_arrays(
        x, np.arange(30) % 2, client_ids=ids, preprocess=data.image_scaling(None)
    )
    assert data.is_of_images(dataset)
    figure = data.plot_examples(dataset, clients=3, examples=4, path=tmp_path / "sheet.png")
    drawn = [len(axes.images) for axes in figure.axes]
    assert drawn == [1] * 8 + [1, 0, 0, 0] and (tmp_path / "sheet.png").exists()
    beside = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert beside == ["7\n20 rows", "8\n9 rows", "9\n1 row"]


def test_tokens_are_texts_where_they_have_names():
    names = ("\0", "a", "b", "c")
    x = np.array([[1, 2, 0], [3, 3, 1]])
    dataset = data.from_arrays(x, x, client_ids=[0, 1], kind="next_token", class_names=names)
    assert dataset.num_classes == 4
    lines = data.example_lines(dataset).splitlines()
    assert lines == ["client 0 (1 row)", "  ab", "client 1 (1 row)", "  cca"]
    plain = data.from_arrays(x, x, client_ids=[0, 1], kind="next_token")
    assert data.example_lines(plain).splitlines()[1] == "  1 2"


def test_what_is_no_image_is_refused_and_said():
    dataset = data.from_arrays(np.eye(3), [0, 1, 0], client_ids=[0, 0, 1])
    with pytest.raises(ValueError, match="example_lines"):
        data.plot_examples(dataset)
    with pytest.raises(ValueError, match="1 to 6"):
        data.plot_partitions({})
