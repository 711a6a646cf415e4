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
