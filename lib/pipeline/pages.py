"""Hands the nodes of a profile to the page builder, unless nothing that they show has changed."""

import sys
import traceback
from contextlib import suppress

from lib.data.files import write_json
from lib.pipeline import WrongUse
from lib.pipeline.keys import Hashes, digest
from lib.pipeline.plan import plan
from lib.pipeline.profile import CODE_ROOT, Home, Profile
from lib.pipeline.schema import read_notebook
from lib.pipeline.store import Store, read_mapping
from lib.pipeline.surroundings import title_of
from lib.report.nodes import Node

__all__ = ["gather", "render_pages"]


def gather(home: Home, profile: Profile, hashes: Hashes) -> list[Node]:
    """The nodes by number, in the state that a reader sees: also stale, failed or not run."""
    store, found = Store(home, profile.name), list[Node]()
    for name, step in plan(home, profile, profile.order(), hashes, lenient=True).items():
        result, error, node = store.current(name), store.failure(name), profile.nodes[name]
        state, title = str(step.state), name
        if state in {"run", "maybe"}:
            state = "stale" if result else "not run"
        if state != "done" and error:
            state = "failed"
        with suppress(WrongUse):
            title = title_of(read_notebook(home.notebook(node.notebook))) or name
        used_by = [n for n, other in sorted(profile.nodes.items()) if name in other.needs]
        found.append(Node(name, state, title, node.notebook, sorted(node.needs), used_by,
                          "; ".join(step.reasons), result, error or {}))  # fmt: skip
    return sorted(found, key=lambda node: node.notebook[:2])


def render_pages(home: Home, profile: Profile) -> bool:
    """Bring ``reports/`` up to date; a page that cannot be made is told, results stay."""
    hashes, stamp = Hashes(home.store), home.store / profile.name / "rendered.json"
    nodes, shown, before = gather(home, profile, hashes), dict[str, str](), read_mapping(stamp)
    code = [hashes.of(path) for path in sorted((CODE_ROOT / "lib/report").rglob("*.*"))
            if path.suffix != ".pyc"]  # fmt: skip
    for node in nodes:
        source = home.notebook(node.notebook)
        seen = {**vars(node), "result": node.result and node.result.key, "code": code,
                "all": [other.name for other in nodes],
                "source": hashes.of(source) if source.is_file() else ""}  # fmt: skip
        shown[node.name] = digest(seen)
    if shown == before and (home.root / "reports").exists():
        return True
    try:
        from lib.report.render import render_all

        same = {name for name in shown if shown[name] == before.get(name)}
        index = render_all(home.root, profile.name, nodes, profile.about, same)
    except Exception as error:  # noqa: BLE001 - pages never undo what notebooks finished
        told = "".join(traceback.format_exception(error)[-3:])
        print(f"the pages could not be made: {error!r}\n{told}", file=sys.stderr)
        return False
    write_json(stamp, shown)
    print(f"pages: {index.relative_to(home.root)}")
    return True
