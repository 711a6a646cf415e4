"""Bits that positions of sparse messages take, in a table."""

import math

import numpy as np
import pytest

from fljax.studies.study_report import positions, sparse_codes

PARAMS = {"b": np.zeros(10, np.float32), "w": np.zeros((10, 9), np.float32)}


def rows_of(*variants):
    codes = sparse_codes({str(place): values for place, values in enumerate(variants)})
    return positions(codes, PARAMS)


def test_index_formats_stand_side_by_side():
    # of 100 coordinates, 10 are sent
    top_k = {"uplink": "top_k(0.1)"}
    head, line = rows_of({}, top_k, top_k | {"uplink_memory": "error_feedback"})
    assert head[0] == "of 100 coordinates" and line[0] == "`top_k(0.1)`"
    entropy = (320 + math.log2(math.comb(100, 10))) / 8
    sizes = ((320 + 70) / 8, (320 + 100) / 8, entropy)
    assert line[2:5] == [f"{size:,.0f} ({400 / size:,.1f} x)" for size in sizes]
    assert not sparse_codes({"int8": {"uplink": "int8"}, "none": {}})


@pytest.mark.parametrize(
    ("uplink", "per_leaf", "sent", "message"),
    [
        ("top_k(0.1)", False, "10", "smallest: 49"),
        ("top_k(0.1, index_format='bitmap')", False, "10", "bitmap: 52"),
        ("top_k(0.3, index_format='raw')", False, "30", "raw: 146"),
        ("rand_k(0.1, index_format='seed')", False, "10", "seed: 48"),
        # 1 of 10 by a position of 4 bits, 9 of 90 by 7 bits each
        ("top_k(0.1)", True, "10", "smallest: 48"),
    ],
)
def test_what_runs_send_is_told(uplink, per_leaf, sent, message):
    _, line = rows_of({"uplink": uplink, "uplink_per_leaf": per_leaf})
    assert (line[1], line[5]) == (sent, message)
    assert line[0] == f"`{uplink}{' per leaf' * per_leaf}`"
