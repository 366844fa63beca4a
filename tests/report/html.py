"""Reads a page back: elements, attributes, visible text."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "rect"}


class Page(HTMLParser):
    """All start tags as (tag, attributes, text below it); unbalanced tags are an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.source = path, path.read_text("utf-8")
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.stack: list[tuple[str, dict, list[str]]] = []
        self.feed(self.source)
        assert not self.stack, f"{path.name}: not closed: {[tag for tag, *_ in self.stack]}"

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.stack, f"{self.path.name}: </{tag}> closes nothing"
        assert self.stack[-1][0] == tag, f"{self.path.name}: </{tag}> in <{self.stack[-1][0]}>"
        self.stack.pop()

    def handle_data(self, data):
        for _, _, text in self.stack:
            text.append(data)

    def all(self, tag):
        return [(attributes, "".join(text)) for t, attributes, text in self.elements if t == tag]

    def text(self):
        return self.all("body")[0][1]
