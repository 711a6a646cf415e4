"""Imports what makes pages of the site, docs/generators, and tells which pages it makes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
generators = importlib.import_module("generators")
api, configs, gallery, names, outside, promises = (
    importlib.import_module(f"generators.{name}")
    for name in ("api", "configs", "gallery", "names", "outside", "promises")
)
lessons, pages = (
    importlib.import_module(f"generators.tutorials.{name}") for name in ("lessons", "pages")
)
sys.path.remove(str(ROOT / "docs"))

PAGES = api.pages()
# pages of the site that are no files of docs/
MADE = {*outside.included(), *PAGES, "configs.md", "promises.md"}
# pictures of the gallery, which are drawn when the site is built
DRAWN = {f"gallery/{name}" for name in gallery.shown(gallery.PAGE.read_text())}
