"""Writes the pages of a profile: one per node, the index, and ``reports/metrics.json``.

The index of ``demo`` is ``reports/index.html``; another profile has ``reports/<profile>/index.html``
and a link there. A page whose content key is unchanged is left alone, so nothing-to-do is cheap.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lib.data.files import write_atomic, write_json
from lib.report import node_page
from lib.report.changes import Changes
from lib.report.graph import MARKS, draw_graph
from lib.report.metrics import collect
from lib.report.node_page import duration, moment
from lib.report.results import Json, Node, gather, profiles, runs
from lib.report.summary import Win, find_wins, is_data, since_last_run
from lib.report.tables import Cell, Table, cut, interval, scores, shown
from lib.report.text import make_scrub, tidy

__all__ = ["render_all"]

HERE = Path(__file__).parent
FIRST_PROFILE = "demo"  # its index is reports/index.html
KEY = re.compile(rb'<meta name="content-key" content="([0-9a-f]{64})">')
PROFILES = re.compile(r"<!--profiles-->.*?<!--/profiles-->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Site:
    """What all pages of one profile share."""

    home: Path
    profile: str
    nodes: list[Node]
    environment: Environment
    code: str
    links: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.home / "reports" / self.profile

    @property
    def index(self) -> Path:
        is_first = self.profile == FIRST_PROFILE
        return (self.folder.parent if is_first else self.folder) / "index.html"


def render_all(
    home: Path, profile: str, plan: Mapping[str, Mapping[str, object]] | None = None
) -> Path:
    """Bring the pages of ``profile`` up to date and return the path of its index.

    ``plan``: node -> {state, title, notebook, uses, used_by, reason} in the order to show. Without
    it the store alone is read: what has a result is done, what has a failure has failed.
    """
    nodes = gather(home, profile, plan)
    links = {node.notebook: f"{node.name}.html" for node in reversed(nodes) if node.notebook}
    site = Site(home, profile, nodes, _environment(home), _code_hash(), links)
    written = {site.index.name} if site.index.parent == site.folder else set()
    for place in range(len(nodes)):
        written |= _write_node(site, place)
    for old in site.folder.glob("*.html"):
        if old.name not in written and KEY.search(old.read_bytes()[:400]):
            old.unlink()  # a node that is no longer part of the profile
    _write_index(site)
    names = profiles(home)
    rows = [row for name in names for row in collect(home, name)]
    target = home / "reports" / "metrics.json"
    if not target.is_file() or json.loads(target.read_text("utf-8")) != rows:
        write_json(target, rows)
    _link_profiles(home)
    return site.index


def _environment(home: Path) -> Environment:
    scrub = make_scrub(home)

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) else tidy(scrub(str(value)))

    environment = Environment(
        loader=FileSystemLoader(HERE / "template"), autoescape=True, finalize=finalize,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["cut"] = lambda value, length: cut(str(value), length)
    style = Markup((HERE / "template" / "style.css").read_text("utf-8"))
    environment.globals |= {"marks": MARKS, "style": style}
    return environment


def _code_hash() -> str:
    """Pages are made anew when the renderer itself has changed."""
    files = [*HERE.glob("*.py"), *HERE.glob("template/*")]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(files))).hexdigest()


def _write_node(site: Site, place: int) -> set[str]:
    """Write a node's page, and beside a failure the page of the last good result."""
    node = site.nodes[place]
    pages = {f"{node.name}.html": False}
    if node.state == "failed" and node.result:
        pages[f"{node.name}.last-good.html"] = True
    for name, earlier in pages.items():
        around = [
            site.nodes[i].name if 0 <= i < len(site.nodes) else "" for i in (place - 1, place + 1)
        ]
        about = {
            "node": node, "before": around[0], "after": around[1], "profile": site.profile,
            "known": [other.name for other in site.nodes],
            "index": "index.html" if site.index.parent == site.folder else "../index.html",
        }  # fmt: skip
        source = site.home / "notebooks" / f"{node.notebook}.ipynb"
        prose = source.read_bytes() if node.notebook and source.is_file() else b""
        key = _key(site, about | {"earlier": earlier, "links": site.links}, prose)
        if _has_key(site.folder / name, key):
            continue
        content = node_page.build(node, site.home, source, site.links, earlier=earlier)
        html = site.environment.get_template("node.j2").render(**about, **content, key=key)
        _write(site.folder / name, html)
    return set(pages)


def _write_index(site: Site) -> None:
    nodes, history = site.nodes, runs(site.home, site.profile)
    wins = find_wins(nodes)
    started, changes, gone = since_last_run(site.home, site.profile, nodes, history)
    last = history[-1] if history else {}
    states = Counter(node.state for node in nodes)
    context = {
        "profile": site.profile,
        "about": _about(site.home / "params" / f"{site.profile}.yaml"),
        "counts": list(states.items()),
        "ran": _ran(last),
        "data": [node for node in nodes if is_data(node)],
        "wins": wins,
        "win_table": _win_table(wins),
        "failed": [node for node in nodes if node.state in ("failed", "corrupt")],
        "blocked": [node for node in nodes if node.state == "blocked"],
        "changes": changes,
        "moved": sum(len(change.moved) for change in changes),
        "moved_table": _moved_table,
        "gone": gone,
        "since": moment(started),
        "compared": len(history) > 1,
        "rows": [_row(node) for node in nodes],
        "pages": "" if site.index.parent == site.folder else f"{site.profile}/",
    }
    context["graph"] = draw_graph(nodes, str(context["pages"]))
    context["others"] = ""  # filled by _link_profiles
    key = _key(site, {"nodes": nodes, "history": history}, str(context["about"]).encode())
    if not _has_key(site.index, key):
        _write(site.index, site.environment.get_template("index.j2").render(**context, key=key))


def _link_profiles(home: Path) -> None:
    """Keep the list of profiles in ``reports/index.html``; make a plain one where there is none."""
    first, folder = home / "reports" / "index.html", home / "reports"
    found = sorted(path.parent.name for path in folder.glob("*/index.html"))
    links = ", ".join(f'<a href="{escape(name)}/index.html">{escape(name)}</a>' for name in found)
    if not first.is_file():
        page = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>lingrec</title>'
        page += "</head><body><main><h1>lingrec</h1><p>Profiles: <!--profiles--><!--/profiles-->"
        _write(first, page + "</p></main></body></html>")
    text = first.read_text("utf-8")
    block = f"<!--profiles-->{'Other profiles: ' if links else ''}{links}<!--/profiles-->"
    linked = PROFILES.sub(lambda _: block, text)
    if linked != text:
        _write(first, linked)


def _row(node: Node) -> Json:
    record = node.result.record if node.result else {}
    note = str(record.get("note") or "")
    if node.state == "failed":
        note = str(node.error.get("message") or "failed; no message was left")
    elif node.state not in ("done", "stale"):
        note = node.reason or note or "has not run yet"
    return {"name": node.name, "title": node.title, "notebook": node.notebook, "state": node.state,
            "note": note, "time": duration(record.get("seconds"))}  # fmt: skip


def _win_table(wins: Sequence[Win]) -> Table:
    heads = (
        "data",
        "metric",
        "best",
        "value",
        "next best",
        "value",
        "lead",
        "verdict",
        "ceiling",
        "n",
    )
    numbers = (3, 5, 6, 8, 9)
    verdicts = {True: "intervals apart", False: "intervals overlap", None: "no intervals"}
    rows = []
    for win in wins:
        ceiling = (
            Cell(win.ceiling, number=True) if win.ceiling else Cell("none known", missing=True)
        )
        n = Cell("not given", missing=True) if win.n is None else Cell(shown(win.n, 0), number=True)
        metric = win.metric + (f" ({win.unit})" if win.unit else "")
        rows.append((
            Cell(" + ".join(win.data), header=True), Cell(metric), Cell(cut(win.winner, 60), best=True),
            Cell(win.value, note=win.span, number=True), Cell(cut(win.second, 60)),
            Cell(win.second_value, number=True), Cell(win.lead, number=True),
            Cell(verdicts[win.separate]), ceiling, n,
        ))  # fmt: skip
    columns = tuple(Cell(head, number=i in numbers) for i, head in enumerate(heads))
    return Table("The best of all compared rows on each data set, and its distance to the next.",
                 columns, tuple(rows))  # fmt: skip


def _moved_table(change: Changes) -> Table:
    rows = []
    for moved in change.moved[:12]:
        name, sides = moved.any, [scores([m])[0] if m else None for m in (moved.old, moved.new)]
        cells = []
        for side in sides:
            text = "absent" if side is None or side.value is None else f"{side.value:.5g}"
            cells.append(Cell(text.replace("-", "−"), number=True,
                              note=interval(side, 4) if side else ""))  # fmt: skip
        where = cut(
            " · ".join(part for part in (name.row, name.segment) if part not in ("", "all")), 80
        )
        rows.append((Cell(name.name, header=True), Cell(where or "–"), *cells, Cell(moved.verdict)))
    heads = [
        Cell("metric"),
        Cell("row"),
        Cell("before", number=True),
        Cell("now", number=True),
        Cell(""),
    ]
    more = len(change.moved) - len(rows)
    return Table(f"Metrics of {change.node} beyond their intervals", tuple(heads), tuple(rows),
                 (f"{more} more are left out.",) if more > 0 else ())  # fmt: skip


def _ran(last: Json) -> str:
    if not last:
        return ""
    ran = sum(
        1 for entry in last["nodes"].values() if isinstance(entry, dict) and entry.get("seconds")
    )
    return f"Last run {moment(last.get('started'))}, {duration(last.get('seconds'))}, {ran} nodes executed."


def _about(path: Path) -> str:
    """The ``about:`` line of a profile; the runner has checked the rest of the file."""
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    match = re.search(r"^about:[ \t]*(.+)$", text, re.MULTILINE)
    return match[1].strip().strip("\"'") if match else ""


def _key(site: Site, content: Mapping[str, object], prose: bytes) -> str:
    text = json.dumps([site.code, content], sort_keys=True, default=partial(_plain, site))
    return hashlib.sha256(text.encode() + prose).hexdigest()


def _plain(site: Site, value: object) -> object:
    if isinstance(value, Node):
        result = value.result and [value.result.key, value.result.manifest]
        return [value.name, value.state, value.title, value.notebook, value.uses, value.used_by,
                value.reason, value.error, result]  # fmt: skip
    return str(value)


def _has_key(path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        match = KEY.search(file.read(400))
    return bool(match) and match[1].decode() == key  # type: ignore[index]


def _write(path: Path, html: str) -> None:
    lines = (line.rstrip() for line in html.splitlines())
    write_atomic(path, html.strip().encode("utf-8", "replace") + b"\n")
