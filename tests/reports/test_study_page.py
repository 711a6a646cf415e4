"""The page of a study: its report, and curves of its variants, as far as it has come."""

import json

import pytest
from html_pages import read
from written_runs import write_study

from fljax.reports import write_report


def test_its_page_has_table_gaps_pictures_and_curves(tmp_path):
    path = write_report(write_study(tmp_path / "mu"))
    text = read(path)
    for part in ("mu on digits", "a < b", "gap", "2 variants × 2 seeds", "Curves by variant"):
        assert part in text
    page = path.read_text()
    assert page.count("<img") == len(list((tmp_path / "mu" / "plots").iterdir())) > 0
    assert 'class="band"' in page and "Not complete" not in text


def test_an_unfinished_one_is_said_to_be_so(tmp_path):
    text = read(write_report(write_study(tmp_path / "half", over=1)))
    assert "Not complete" in text and "1 of 4 trials are over" in text
    odd = {"sweep": {}, "config": {"model_options": 3.5}}
    (tmp_path / "half" / "checksums.json").unlink()
    (tmp_path / "half" / "config.json").write_text(json.dumps(odd))
    with pytest.raises(ValueError, match=r"config\.json, config: model_options = 3\.5"):
        write_report(tmp_path / "half")
    assert "No round of this study" in read(write_report(write_study(tmp_path / "none", over=0)))
