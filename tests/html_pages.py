"""Pages of HTML as tests read them: strictly."""

from __future__ import annotations

from html.parser import HTMLParser


class Strict(HTMLParser):
    """Refuses elements that are not closed in their order, and collects what would be loaded."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.loaded, self.texts, self.ids = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_starttag(self, tag, attributes):
        named = (value for name, value in attributes if name in ("src", "href"))
        self.loaded += [value for value in named if not value.startswith(("#", "data:"))]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, text):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def read(path):
    """Returns the text of a page, which loads nothing and names no place twice."""
    page = Strict(path.read_text())
    assert not page.loaded and len(set(page.ids)) == len(page.ids)
    return page.text
