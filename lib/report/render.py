"""Writes the pages of a profile: one per node, the index, and ``reports/metrics.json``.

The index of ``demo`` is ``reports/index.html``; others are ``reports/<profile>/index.html``, linked
from there. A page whose content key is unchanged is left alone, so nothing-to-do is cheap.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lib.data.files import write_atomic, write_json
from lib.report.changes import Changes
from lib.report.graph import MARKS, draw_graph
from lib.report.metrics import collect
from lib.report.node_page import build, duration, moment
from lib.report.results import Node, gather, profiles, runs
from lib.report.summary import Win, find_wins, is_data, since_last_run
from lib.report.tables import Cell, Table, cut, digits, interval, shown
from lib.report.text import make_scrub, tidy

__all__ = ["render_all"]

HERE = Path(__file__).parent
FIRST_PROFILE = "demo"  # its index is reports/index.html
KEY = re.compile(rb'<meta name="content-key" content="([0-9a-f]{64})">')
PROFILES = re.compile(r"<!--profiles-->.*?<!--/profiles-->", re.DOTALL)
LISTING = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>lingrec</title>
</head><body><main><h1>lingrec</h1><p><!--profiles--><!--/profiles--></p></main></body></html>"""


@dataclass(frozen=True, slots=True)
class Site:
    """What all pages of one profile share."""

    home: Path
    profile: str
    nodes: list[Node]
    environment: Environment
    code: str  # hash of the renderer itself: other code makes other pages

    @property
    def folder(self) -> Path:
        return self.home / "reports" / self.profile

    @property
    def index(self) -> Path:
        is_first = self.profile == FIRST_PROFILE
        return (self.folder.parent if is_first else self.folder) / "index.html"

    @property
    def links(self) -> dict[str, str]:
        """Notebook -> page of the first node that runs it."""
        return {n.notebook: f"{n.name}.html" for n in reversed(self.nodes) if n.notebook}


def render_all(
    home: Path, profile: str, plan: Mapping[str, Mapping[str, object]] | None = None
) -> Path:
    """Bring the pages of ``profile`` up to date and return the path of its index.

    ``plan``: node -> {state, title, notebook, uses, used_by, reason} in the order to show. Without
    it the store alone is read: what has a result is done, what has a failure has failed.
    """
    code = b"\0".join(p.read_bytes() for p in sorted([*HERE.glob("*.py"), *HERE.glob("*/*.*")]))
    site = Site(home, profile, gather(home, profile, plan), _environment(home), _sha(code))
    written = {"index.html"}
    for place in range(len(site.nodes)):
        written |= _write_node(site, place)
    for old in site.folder.glob("*.html"):
        if old.name not in written:
            old.unlink()  # its node is no longer part of the profile
    _write_index(site)
    rows = [row for name in profiles(home) for row in collect(home, name)]
    target = home / "reports" / "metrics.json"
    if not target.is_file() or json.loads(target.read_text("utf-8")) != rows:
        write_json(target, rows)
    _link_profiles(home / "reports")
    return site.index


def _environment(home: Path) -> Environment:
    """Jinja that escapes everything, shows hidden characters and keeps private paths off pages."""
    scrub = make_scrub(home)

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) else tidy(scrub(str(value)))

    environment = Environment(
        loader=FileSystemLoader(HERE / "template"), autoescape=True, finalize=finalize,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"cut": lambda value, length: cut(str(value), length),
                            "duration": duration, "moment": moment}  # fmt: skip
    style = Markup((HERE / "template" / "style.css").read_text("utf-8"))
    environment.globals |= {"marks": MARKS, "style": style}
    return environment


def _write_node(site: Site, place: int) -> set[str]:
    """Write a node's page, and beside a failure the page of the last good result."""
    node, names = site.nodes[place], [node.name for node in site.nodes]
    pages = {f"{node.name}.html": False}
    if node.state == "failed" and node.result:
        pages[f"{node.name}.last-good.html"] = True
    source = site.home / "notebooks" / f"{node.notebook}.ipynb"
    prose = source.read_bytes() if node.notebook and source.is_file() else b""
    shared = {
        "node": node, "profile": site.profile, "known": names,
        "before": names[place - 1] if place else "", "after": "".join(names[place + 1 : place + 2]),
        "index": "index.html" if site.index.parent == site.folder else "../index.html",
    }  # fmt: skip
    for name, earlier in pages.items():
        key = _content_key(site, [shared, earlier, site.links, _sha(prose)])
        if not _has_key(site.folder / name, key):
            content = build(node, site.home, site.links, earlier=earlier)
            html = site.environment.get_template("node.j2").render(shared, **content, key=key)
            _write(site.folder / name, html)
    return set(pages)


def _write_index(site: Site) -> None:
    nodes, history = site.nodes, runs(site.home, site.profile)
    about = _about(site.home / "params" / f"{site.profile}.yaml")
    key = _content_key(site, [nodes, history, about])
    if _has_key(site.index, key):
        return
    wins = find_wins(nodes)
    since, changes, gone = since_last_run(site.home, site.profile, nodes, history)
    pages = "" if site.index.parent == site.folder else f"{site.profile}/"
    context = {
        "key": key, "profile": site.profile, "about": about, "nodes": nodes, "pages": pages,
        "counts": list(Counter(node.state for node in nodes).items()),
        "last": history[-1] if history else {}, "compared": len(history) > 1,
        "data": [node for node in nodes if is_data(node)],
        "failed": [node for node in nodes if node.state in ("failed", "corrupt")],
        "blocked": [node for node in nodes if node.state == "blocked"],
        "wins": wins, "win_table": _win_table(wins),
        "changes": changes, "gone": gone, "since": moment(since),
        "moved_table": _moved_table(changes),
        "moved": sum(len(change.moved) for change in changes),
        "graph": draw_graph(nodes, pages), "others": Markup("<!--profiles--><!--/profiles-->"),
    }  # fmt: skip
    _write(site.index, site.environment.get_template("index.j2").render(context))


def _link_profiles(folder: Path) -> None:
    """Keep the list of profiles in ``reports/index.html``; make a plain one where there is none."""
    names = sorted(path.parent.name for path in folder.glob("*/index.html"))
    links = ", ".join(f'<a href="{escape(name)}/index.html">{escape(name)}</a>' for name in names)
    first = folder / "index.html"
    before = first.read_text("utf-8") if first.is_file() else LISTING
    block = f"<!--profiles-->{'Other profiles: ' * bool(links)}{links}<!--/profiles-->"
    after = PROFILES.sub(lambda _: block, before)
    if after != before or not first.is_file():
        _write(first, after)


def _win_table(wins: Sequence[Win]) -> Table:
    heads = ("data", "metric", "best row", "value", "next best", "value", "lead", "verdict",
             "ceiling", "n")  # fmt: skip
    rows = []
    for win in wins:
        first, second, ceiling = win.first, win.second, win.ceiling
        rows.append((
            Cell(" + ".join(win.data), header=True),
            Cell(cut(f"{first.name} ({first.unit})" if first.unit else first.name, 60)),
            Cell(cut(first.row, 60)),
            Cell(win.value, note=interval(first, win.decimals), number=True),
            Cell(cut(second.row, 60)),
            Cell(shown(second.value or 0.0, win.decimals), number=True),
            Cell(win.lead, number=True), Cell(win.verdict),
            Cell(shown(ceiling.value or 0.0, win.decimals) if ceiling else "not known",
                 number=True, missing=not ceiling),
            Cell("not given" if first.n is None else shown(first.n), number=True,
                 missing=first.n is None),
        ))  # fmt: skip
    columns = tuple(Cell(head, number=i in (3, 5, 6, 8, 9)) for i, head in enumerate(heads))
    caption = "On each data set, the metric that most rows compete in: the best row and the next."
    return Table(caption, columns, tuple(rows), ("Brackets: 95 % interval.",))


def _moved_table(changes: Sequence[Changes], limit: int = 15) -> Table:
    moved = [(change.node, metric) for change in changes for metric in change.moved]
    rows = []
    for node, change in moved[:limit]:
        sides, metric = (change.old, change.new), change.any
        decimals = digits([side for side in sides if side])
        cells = [Cell("absent", number=True, missing=True) if side is None or side.value is None
                 else Cell(shown(side.value, decimals), interval(side, decimals), number=True)
                 for side in sides]  # fmt: skip
        where = " · ".join(part for part in (metric.row, metric.segment) if part not in ("", "all"))
        names = (cut(metric.name, 60), cut(where, 60) or "–")
        rows.append((Cell(node, header=True), *map(Cell, names), *cells, Cell(change.verdict)))
    heads = ("node", "metric", "row", "before", "now", "verdict")
    columns = tuple(Cell(head, number=head in ("before", "now")) for head in heads)
    more = f"{len(moved) - limit} more: `run_all.py diff` lists all." if len(moved) > limit else ""
    return Table("Metrics beyond their intervals", columns, tuple(rows), (more,) if more else ())


def _about(path: Path) -> str:
    """The ``about:`` line of a profile; the runner has checked the rest of the file."""
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    match = re.search(r"^about:[ \t]*(.+)$", text, re.MULTILINE)
    return match[1].strip().strip("\"'") if match else ""


def _content_key(site: Site, content: object) -> str:
    """A hash of all that a page is made from; a result enters through its manifest."""

    def plain(value: object) -> object:
        if isinstance(value, Node):
            result = value.result and [value.result.key, value.result.manifest]
            return [value.name, value.state, value.title, value.notebook, value.uses,
                    value.used_by, value.reason, value.error, result]  # fmt: skip
        return str(value)

    return _sha(json.dumps([site.code, content], sort_keys=True, default=plain).encode())


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _has_key(path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        match = KEY.search(file.read(400))
    return match is not None and match[1].decode() == key


def _write(path: Path, html: str) -> None:
    write_atomic(path, html.strip().encode("utf-8", "replace") + b"\n")
