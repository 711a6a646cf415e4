"""Runs the page of the gallery, whose code draws the pictures that it shows.

What it draws lies in `.cache/gallery/` under a hash of the page's code and of fljax, so that it
runs again where one of them has changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from generators.outside import ROOT

PAGE = ROOT / "docs/gallery/index.md"
CACHE = ROOT / ".cache/gallery"


def shown(markdown: str) -> list[str]:
    """Returns the pictures that a page shows, in order.

    Example:
      >>> shown("![Loss](run/loss.png) and [a link](run/loss.png)")
      ['run/loss.png']
    """
    return re.findall(r"!\[[^\]]*\]\(([^)]+\.png)\)", markdown)


def code(markdown: str) -> str:
    """Returns the Python of a page, one block behind the other.

    Example:
      >>> page = "```python\\nx = 1\\n```\\n\\n```bash\\nls\\n```\\n\\n```python\\nx += 1\\n```\\n"
      >>> code(page)
      'x = 1\\n\\nx += 1\\n'
    """
    return "\n".join(re.findall(r"^```python\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE))


def pictures() -> dict[str, Path]:
    """Returns {page of the site: PNG file} of all pictures; runs the page where it has changed.

    Raises:
      RuntimeError: If its code fails, with the end of what it wrote, or leaves out a picture.
    """
    markdown = PAGE.read_text()
    folder = CACHE / _key(code(markdown))
    if not folder.exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        _run(code(markdown), folder)
    missing = [name for name in shown(markdown) if not (folder / name).is_file()]
    if missing:
        raise RuntimeError(f"{PAGE} shows {', '.join(missing)}, which its code does not draw.")
    return {f"gallery/{name}": folder / name for name in shown(markdown)}


def _run(program: str, folder: Path) -> None:
    working = folder.with_suffix(".working")
    working.mkdir(parents=True)
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=working,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"The code of {PAGE} failed:\n{done.stderr[-2000:]}")
    working.rename(folder)


def _key(program: str) -> str:
    found = hashlib.sha256(program.encode())
    for path in sorted((ROOT / "fljax").rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
