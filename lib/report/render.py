"""Writes the pages of a profile: one per node, the index, and ``reports/metrics.json``.

The index of ``demo`` is ``reports/index.html``; others are ``reports/<profile>/index.html``, linked
from there. A page that would be the same is left alone.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lib.data.files import write_atomic
from lib.pipeline.notebook import hide_places
from lib.pipeline.profile import Home
from lib.pipeline.store import Json, Store
from lib.report.metrics import collect, profiles, read_record
from lib.report.nodes import Node, places
from lib.report.notebook import code_html, markdown_html
from lib.report.page import build
from lib.report.summary import find_wins, moved_table, since_last_run, win_table
from lib.report.text import cut, duration, moment, size, tidy

__all__ = ["render_all"]

HERE = Path(__file__).parent
FIRST_PROFILE = "demo"  # its index is reports/index.html
MARKS = {"done": "✓", "failed": "✕", "stale": "↻", "blocked": "⊘", "not run": "○"}
PROFILES = re.compile(r"<!--profiles-->.*?<!--/profiles-->", re.DOTALL)
LISTING = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>lingrec</title>
</head><body><main><h1>lingrec</h1><p><!--profiles--><!--/profiles--></p></main></body></html>"""


def render_all(
    home: Path, profile: str, nodes: Sequence[Node], about: str = "",
    same: Set[str] = frozenset(),
) -> Path:  # fmt: skip
    """Bring the pages of ``profile`` up to date and return the path of its index.

    The pages of the nodes in ``same`` are left alone where they are.
    """
    store, reports = Store(Home(home), profile), home / "reports"
    folder, first = reports / profile, reports / "index.html"
    index = first if profile == FIRST_PROFILE else folder / "index.html"
    links = {node.notebook: f"{node.name}.html" for node in reversed(nodes) if node.notebook}
    environment = _environment(home, links)
    environment.globals |= {"profile": profile, "nodes": nodes, "about": about}

    def write(path: Path, context: Json) -> None:
        template = environment.get_template("index.j2" if path == index else "node.j2")
        html = template.render(context).strip() + "\n"
        _write(path, html.encode("utf-8", "replace"))

    for place, node in enumerate(nodes):
        if node.name not in same or not (folder / f"{node.name}.html").is_file():
            for name, context in _pages_of_node(store, nodes, place):
                write(folder / name, context | {"index": os.path.relpath(index, folder)})
    names = {f"{node.name}{kind}" for node in nodes
             for kind in ("", ".last-good")[: 1 + (node.state == "failed")]}  # fmt: skip
    for old in folder.glob("*.html"):
        if old != index and old.stem not in names:
            old.unlink()
    write(index, _index(store, nodes) | {
        "pages": "" if index.parent == folder else f"{profile}/",
        "others": _others(reports) if index == first else "",
    })  # fmt: skip
    rows = [row for name in profiles(home) for row in collect(home, name)]
    text = json.dumps(rows, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    _write(reports / "metrics.json", text.encode() + b"\n")
    before = first.read_text("utf-8") if first.is_file() else LISTING
    _write(first, PROFILES.sub(lambda _: _others(reports), before).encode())
    return index


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)


def _others(reports: Path) -> Markup:
    """The list of profiles beside the first one, between marks by which it is found again."""
    names = sorted(path.parent.name for path in reports.glob("*/index.html"))
    links = ", ".join(f'<a href="{escape(name)}/index.html">{escape(name)}</a>' for name in names)
    told = "Other profiles: " if links else ""
    return Markup(f"<!--profiles-->{told}{links}<!--/profiles-->")


def _environment(home: Path, links: Mapping[str, str]) -> Environment:
    """Jinja that escapes everything, shows hidden characters and keeps private paths off pages."""

    def clean(value: object) -> str:
        return tidy(hide_places(str(value), home))

    environment = Environment(
        loader=FileSystemLoader(HERE / "template"), autoescape=True, undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "cut": cut, "duration": duration, "moment": moment, "size": size,
        "code": lambda source: code_html(clean(source)),
        "markdown": lambda source: markdown_html(clean(source), links),
    }  # fmt: skip
    style = Markup((HERE / "template" / "style.css").read_text("utf-8"))
    environment.globals |= {"marks": MARKS, "style": style}
    return environment


def _pages_of_node(store: Store, nodes: Sequence[Node], place: int) -> Iterator[tuple[str, Json]]:
    """The page of a node, and beside a failure the page of the last good result."""
    node, names = nodes[place], [node.name for node in nodes]
    failed, result = node.state == "failed", node.result
    source, last = store.home.notebook(node.notebook), f"{node.name}.last-good.html"
    seen: Json = {
        "node": node, "known": names, "before": names[place - 1] if place else "",
        "after": "".join(names[place + 1 : place + 2]), "error": {}, "last_good": "",
    }  # fmt: skip
    if failed:
        folder = store.folder(node.name) / "failed"
        built = build(read_record(None), (), None, folder, source)
        yield f"{node.name}.html", {
            **seen, **built, "state": "failed", "error": node.error,
            "last_good": last if result else "",
        }  # fmt: skip
    if result or not failed:
        folder = result.folder if result else store.folder(node.name)
        built = build(node.record, node.metrics, result, folder, source)
        name = last if failed else f"{node.name}.html"
        yield name, {**seen, **built, "state": "last good result" if failed else node.state}


def _index(store: Store, nodes: Sequence[Node]) -> Json:
    history, wins, since = store.runs(), find_wins(nodes), since_last_run(store, nodes)
    return {
        "counts": list(Counter(node.state for node in nodes).items()), "places": places(nodes),
        "last": history[-1] if history else {}, "compared": len(history) > 1,
        "wins": wins, "win_table": win_table(wins), "since": since,
        "moved": sum(len(change.moved) for change in since.changes),
        "moved_table": moved_table(since.changes),
    }  # fmt: skip
