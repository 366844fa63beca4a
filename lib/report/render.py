"""Writes the pages of a profile: one per node, the index, and ``reports/metrics.json``.

The index of ``demo`` is ``reports/index.html``; others are ``reports/<profile>/index.html``, linked
from there. A page whose content key is unchanged is left alone, so nothing-to-do is cheap.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lib.data.files import sha256_of, write_atomic, write_json
from lib.pipeline.profile import Home
from lib.pipeline.store import Json, Store
from lib.report.metrics import collect, profiles
from lib.report.nodes import Node, State, gather, places
from lib.report.notebook import code_html, markdown_html, table_html
from lib.report.page import build
from lib.report.summary import find_wins, moved_table, since_last_run, win_table
from lib.report.text import cut, duration, make_scrub, moment, size, tidy

__all__ = ["render_all"]

HERE = Path(__file__).parent
FIRST_PROFILE = "demo"  # its index is reports/index.html
MARKS = {"done": "✓", "failed": "✕", "stale": "↻", "blocked": "⊘", "not run": "○"}
PROFILES = re.compile(r"<!--profiles-->.*?<!--/profiles-->", re.DOTALL)
LISTING = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>lingrec</title>
</head><body><main><h1>lingrec</h1><p><!--profiles--><!--/profiles--></p></main></body></html>"""


@dataclass(frozen=True, slots=True)
class Site:
    """What all pages of one profile share."""

    store: Store
    nodes: list[Node]
    links: dict[str, str]  # notebook -> page of the first node that runs it
    environment: Environment
    code: list[str]  # hashes of the renderer itself: other code makes other pages

    @property
    def folder(self) -> Path:
        return self.store.home.root / "reports" / self.store.profile

    @property
    def index(self) -> Path:
        is_first = self.store.profile == FIRST_PROFILE
        return (self.folder.parent if is_first else self.folder) / "index.html"

    def write(self, path: Path, template: str, seen: Json, make: Callable[[], Json]) -> None:
        """Make a page from what is seen and made, unless it was made from the same already."""

        def plain(value: Node) -> Json:  # a result enters through its manifest
            fields = {name: getattr(value, name) for name in value.__slots__}
            return fields | {"result": value.result and value.result.manifest}

        told = json.dumps([self.code, self.links, seen], sort_keys=True, default=plain)
        key = hashlib.sha256(told.encode()).hexdigest()
        if not path.is_file() or key not in path.read_text("utf-8")[:400]:
            context = {"profile": self.store.profile, "key": key, **seen, **make()}
            html = self.environment.get_template(template).render(context)
            write_atomic(path, html.strip().encode("utf-8", "replace") + b"\n")


def render_all(home: Path, profile: str, states: Mapping[str, State]) -> Path:
    """Bring the pages of ``profile`` up to date and return the path of its index.

    ``states``: node -> {state, title, notebook, uses, used_by, reason} in the order to show.
    """
    store, reports = Store(Home(home), profile), home / "reports"
    nodes = gather(store, states)
    links = {node.notebook: f"{node.name}.html" for node in reversed(nodes) if node.notebook}
    code = [sha256_of(path) for path in sorted([*HERE.glob("*.py"), *HERE.glob("template/*")])]
    site = Site(store, nodes, links, _environment(home, links), code)
    written = {"index.html"}.union(*(_write_node(site, place) for place in range(len(nodes))))
    for old in site.folder.glob("*.html"):
        if old.name not in written:
            old.unlink()  # its node is no longer part of the profile
    _write_index(site)
    rows = [row for name in profiles(home) for row in collect(home, name)]
    target = reports / "metrics.json"
    if not target.is_file() or json.loads(target.read_text("utf-8")) != rows:
        write_json(target, rows)
    _link_profiles(reports)
    return site.index


def _environment(home: Path, links: Mapping[str, str]) -> Environment:
    """Jinja that escapes everything, shows hidden characters and keeps private paths off pages."""
    scrub = make_scrub(home)

    def clean(value: object) -> str:
        return tidy(scrub(str(value)))

    environment = Environment(
        loader=FileSystemLoader(HERE / "template"), autoescape=True, undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "cut": cut, "duration": duration, "moment": moment, "size": size,
        "code": lambda source: code_html(clean(source)),
        "markdown": lambda source: markdown_html(clean(source), links),
        "table_html": lambda html: table_html(clean(html)),
    }  # fmt: skip
    style = Markup((HERE / "template" / "style.css").read_text("utf-8"))
    environment.globals |= {"marks": MARKS, "style": style}
    return environment


def _write_node(site: Site, place: int) -> set[str]:
    """Write a node's page, and beside a failure the page of the last good result."""
    node, names, store = site.nodes[place], [node.name for node in site.nodes], site.store
    source = store.home.notebook(node.notebook)
    seen = {
        "node": node, "known": names, "prose": sha256_of(source) if source.is_file() else "",
        "before": names[place - 1] if place else "", "after": "".join(names[place + 1 : place + 2]),
        "index": "index.html" if site.index.parent == site.folder else "../index.html",
    }  # fmt: skip
    failed, result = node.state == "failed", node.result
    last_good = f"{node.name}.last-good.html" if failed and result else ""
    folder = result.folder if result and not failed else store.folder(node.name) / "failed"
    now = {**seen, "state": node.state, "error": node.error, "last_good": last_good}
    site.write(site.folder / f"{node.name}.html", "node.j2", now,
               lambda: build(node, source, folder, None if failed else result))  # fmt: skip
    if failed and result:
        good = {**seen, "state": "last good result", "error": {}, "last_good": ""}
        site.write(site.folder / last_good, "node.j2", good,
                   lambda: build(node, source, result.folder, result))  # fmt: skip
    return {f"{node.name}.html", last_good}


def _write_index(site: Site) -> None:
    history, profile = site.store.runs(), site.store.profile

    def make() -> Json:
        wins, since = find_wins(site.nodes), since_last_run(site.store, site.nodes)
        return {
            "counts": list(Counter(node.state for node in site.nodes).items()),
            "last": history[-1] if history else {}, "compared": len(history) > 1,
            "wins": wins, "win_table": win_table(wins), "since": since,
            "moved": sum(len(change.moved) for change in since.changes),
            "moved_table": moved_table(since.changes), "places": places(site.nodes),
            "others": Markup("<!--profiles--><!--/profiles-->"),
        }  # fmt: skip

    seen = {"nodes": site.nodes, "history": history, "about": _about(site.store),
            "pages": "" if site.index.parent == site.folder else f"{profile}/"}  # fmt: skip
    site.write(site.index, "index.j2", seen, make)


def _link_profiles(folder: Path) -> None:
    """Keep the list of profiles in ``reports/index.html``; make a plain one where there is none."""
    names = sorted(path.parent.name for path in folder.glob("*/index.html"))
    links = ", ".join(f'<a href="{escape(name)}/index.html">{escape(name)}</a>' for name in names)
    first = folder / "index.html"
    before = first.read_text("utf-8") if first.is_file() else LISTING
    block = f"<!--profiles-->{'Other profiles: ' * bool(links)}{links}<!--/profiles-->"
    after = PROFILES.sub(lambda _: block, before)
    if after != before or not first.is_file():
        write_atomic(first, after.encode())


def _about(store: Store) -> str:
    """The ``about:`` line of a profile; the runner has checked the rest of the file."""
    path = store.home.root / "params" / f"{store.profile}.yaml"
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    match = re.search(r"^about:[ \t]*(.+)$", text, re.MULTILINE)
    return match[1].strip().strip("\"'") if match else ""
