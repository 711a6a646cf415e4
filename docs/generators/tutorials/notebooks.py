"""Makes a notebook of a tutorial: its prose, its code, its outputs and its pictures."""

from __future__ import annotations

import base64
import re

import nbformat
from generators.tutorials.pages import cells
from generators.tutorials.runs import Output

_SETUP = "%matplotlib inline"


def notebook(text: str, outputs: list[Output], site: str) -> str:
    """Returns a notebook, as JSON.

    Args:
      text: The page.
      outputs: What its cells left behind.
      site: Address of the folder of tutorials, to which links of the page are relative.
    """
    made, end = [], 0
    v4 = nbformat.v4
    for number, (cell, output) in enumerate(zip(cells(text), outputs, strict=True), start=1):
        made += _prose(text[end : cell.start], site)
        shown = [v4.new_output("stream", name="stdout", text=cell.output)] if cell.output else []
        for picture in output.pictures:
            png = base64.b64encode(picture.path.read_bytes()).decode()
            data = {"image/png": png, "text/plain": f"<{picture.title}>"}
            shown.append(v4.new_output("display_data", data))
        code = cell.code if number > 1 else f"{_SETUP}\n\n{cell.code}"
        made.append(v4.new_code_cell(code.rstrip(), execution_count=number, outputs=shown))
        end = cell.end
    made += _prose(text[end:], site)
    for number, part in enumerate(made):
        part["id"] = f"cell-{number}"  # drawn at random otherwise, and no two builds would be alike
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = v4.new_notebook(cells=made, metadata={"kernelspec": kernel})
    nbformat.validate(book)
    return nbformat.writes(book)


def _prose(text: str, site: str) -> list:
    """Returns the cell of what stands between two blocks; none where nothing does."""
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r"\]\((?!https?:|#)([^)]+)\)", rf"]({site}\1)", text).strip()
    return [nbformat.v4.new_markdown_cell(text)] if text else []
