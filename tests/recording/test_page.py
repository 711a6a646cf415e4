"""A page is the same in Markdown and in HTML, which needs no other file."""

import base64
import re

from fljax.recording.page import Heading, Picture, Table, Text, Verbatim, as_html, markdown


def test_a_page_in_both_forms(tmp_path):
    picture = tmp_path / "plots" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"pixels")
    page = [
        Heading("a < b", 1),
        Text("*Best* by `x<y`."),
        Table([["variant", "loss"], ["`none`", "1 & 2"]]),
        Picture(picture, "a"),
        Verbatim("python a.py\n  --b"),
    ]
    assert markdown(page, tmp_path) == (
        "# a < b\n\n*Best* by `x<y`.\n\n| variant | loss |\n|---|---:|\n| `none` | 1 & 2 |\n\n"
        "![a](plots/a.png)\n\n    python a.py\n      --b\n"
    )
    text = as_html(page)
    for part in (
        "<title>a &lt; b</title>",
        "<h1>a &lt; b</h1>",
        "<p><em>Best</em> by <code>x&lt;y</code>.</p>",
        "<tr><td><code>none</code></td><td>1 &amp; 2</td></tr>",
        "<pre>python a.py\n  --b</pre>",
    ):
        assert part in text
    (data,) = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    assert base64.b64decode(data) == b"pixels"


def test_columns_of_texts_begin_at_the_left_and_numbers_end_at_the_right(tmp_path):
    rows = [
        ["variant", "keys", "score", "gap", "sent as", "none"],
        ["`a`", "–", "0.91 ± 0.02", "0", "raw: 85", "–"],
        ["`b`", "mu = 0.1", "diverged in round 3", "-0.02", "bitmap: 9", "–"],
    ]
    text = markdown([Table(rows)], tmp_path)
    assert text.splitlines()[1] == "|---|---|---:|---:|---|---:|"
    page = as_html([Table(rows)])
    assert page.count('<td class="text">') == 4 and page.count('<th class="text">') == 2
    assert '<td class="text">mu = 0.1</td><td>diverged in round 3</td><td>-0.02</td>' in page
