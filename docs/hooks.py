"""Builds the site: adds the pages that are made of the code, and turns links to where they are."""

from __future__ import annotations

import re
from pathlib import Path

from generators import api, configs, gallery, names, outside, promises
from generators.tutorials import lessons
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# {page of the site: the tutorial with what its run left}
_LESSONS: dict[str, lessons.Lesson] = {}
_LOADS = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made, and the files of the checkout that pages name."""
    made = {
        **outside.included(),
        **api.pages(),
        "configs.md": configs.page(),
        "promises.md": promises.page(),
    }
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for picture, path in gallery.pictures().items():
        files.append(File.generated(config, picture, abs_src_path=str(path)))
    for page in lessons.pages():
        lesson = _LESSONS[f"tutorials/{page.name}"] = lessons.lesson(page)
        for name, content in lesson.files.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    for page in lessons.others():
        lessons.held(page)
    written = [
        (file.src_uri, outside.rewritten(file.content_string, file.src_uri))
        for file in files.documentation_pages()
    ]
    for page, text in outside.sources(written).items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **kwargs) -> str:
    """Turns the links of a page to where the site has what they lead to."""
    uri = page.file.src_uri
    if uri.startswith("source/"):
        return markdown
    if uri in _LESSONS:
        markdown = _LESSONS[uri].markdown
    return outside.rewritten(names.filled(markdown), uri)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuses a site whose pages load anything from elsewhere."""
    for path in Path(config.site_dir).rglob("*.html"):
        for tag in _LOADS.findall(path.read_text()):
            if 'rel="canonical"' not in tag:
                raise PluginError(f"{path} loads from elsewhere: {tag}")
