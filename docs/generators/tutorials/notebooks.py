"""Makes a notebook of a tutorial: its prose, its code, its outputs and its pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from generators.tutorials.pages import cells
from generators.tutorials.runs import Output

_SETUP = "%matplotlib inline\n\n"


def notebook(text: str, outputs: Sequence[Output]) -> str:
    """Returns a notebook, as JSON.

    Args:
      text: The page.
      outputs: What its cells left behind.

    Raises:
      ImportError: If nbformat is not installed.
    """
    import nbformat
    from nbformat import v4

    made, end = [], 0
    for number, (cell, output) in enumerate(zip(cells(text), outputs, strict=True), start=1):
        made += [v4.new_markdown_cell(part) for part in prose_parts(text[end : cell.start])]
        shown = [v4.new_output("stream", name="stdout", text=cell.output)] if cell.output else []
        for picture in output.pictures:
            png = base64.b64encode(picture.path.read_bytes()).decode()
            data = {"image/png": png, "text/plain": f"<{picture.title}>"}
            shown.append(v4.new_output("display_data", data))
        code = (_SETUP if number == 1 else "") + cell.code.rstrip()
        made.append(v4.new_code_cell(code, execution_count=number, outputs=shown))
        end = cell.end
    made += [v4.new_markdown_cell(part) for part in prose_parts(text[end:])]
    for number, part in enumerate(made):
        part["id"] = f"cell-{number}"  # drawn at random otherwise: no two builds would be alike
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = v4.new_notebook(cells=made, metadata={"kernelspec": kernel})
    nbformat.validate(book)
    return nbformat.writes(book)


def prose_parts(text: str) -> list[str]:
    """Returns the prose between two blocks as a notebook has it: [it], or [] where there is none.

    Links to other tutorials lead to their notebooks; those to other pages, which whoever has
    downloaded a notebook has not, are texts.

    Example:
      >>> prose_parts("\\n<!-- tolerance: 1 -->See [one](gpu.md), [two](../data.md#a).\\n")
      ['See [one](gpu.ipynb), two.']
    """
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r"\]\((\w+)\.md\)", r"](\1.ipynb)", text)
    text = re.sub(r"\[([^\]]+)\]\((?!https?:|\w+\.ipynb)[^)]+\)", r"\1", text).strip()
    return [text] if text else []
