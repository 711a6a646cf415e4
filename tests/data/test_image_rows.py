"""Rows of images one above the other."""

from __future__ import annotations

import numpy as np
import pytest

from fljax.data.pictures.image_rows import plot_image_rows


def test_rows_are_compared_by_column(tmp_path):
    rng = np.random.default_rng(0)
    rows = {"original": rng.uniform(size=(3, 5, 6)), "found": rng.normal(size=(3, 5, 6, 1))}
    captions = {"found": ["20 dB", "8 dB", "3 dB"]}
    figure = plot_image_rows(rows, captions, title="Inverted", path=tmp_path / "rows.png")
    assert (tmp_path / "rows.png").exists()
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_allclose(drawn[0], rows["original"][0])
    np.testing.assert_allclose(drawn[4], np.clip(rows["found"][1, ..., 0], 0, 1))
    assert [axes.get_title() for axes in figure.axes] == ["", "", "", *captions["found"]]
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == list(rows)


def test_values_are_drawn_between_black_and_white():
    figure = plot_image_rows({"a": np.full((1, 2, 2, 3), 127.5)}, low=0, high=255)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), 0.5)


def test_what_are_no_rows_of_images_is_refused():
    images = np.zeros((2, 4, 4))
    with pytest.raises(ValueError, match="as many in one as in the other"):
        plot_image_rows({"a": images, "b": images[:1]})
    with pytest.raises(ValueError, match="draw 1 to 20 images"):
        plot_image_rows({})
    with pytest.raises(ValueError, match=r"'a' has the shape \(2, 4\)"):
        plot_image_rows({"a": images[:, 0]})
    with pytest.raises(ValueError, match="low = 1 must be below high = 0"):
        plot_image_rows({"a": images}, low=1, high=0)
