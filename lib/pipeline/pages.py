"""Hands the state of a profile to the page builder, unless nothing that it shows has changed."""

import sys
import traceback

from lib.data.files import write_atomic
from lib.pipeline.keys import Hashes, digest
from lib.pipeline.plan import plan
from lib.pipeline.profile import CODE_ROOT, Home, Profile
from lib.pipeline.store import Store

__all__ = ["page_states", "render_pages"]


def page_states(home: Home, profile: Profile) -> dict[str, dict[str, object]]:
    """For each node its state as a reader sees it: done, stale, failed, blocked or not run."""
    store = Store(home, profile.name)
    states: dict[str, dict[str, object]] = {}
    steps = plan(home, profile, profile.order(), Hashes(home.store), lenient=True)
    for name, step in steps.items():
        state: str = step.state
        if state in {"run", "maybe"}:
            state = "stale" if store.current(name) else "not run"
        if state != "done" and store.failure(name):
            state = "failed"
        node = profile.nodes[name]
        states[name] = {
            "state": state, "reason": "; ".join(step.reasons), "notebook": node.notebook,
            "uses": sorted(node.needs), "title": "",
            "used_by": sorted(n for n, other in profile.nodes.items() if name in other.needs),
        }  # fmt: skip
    return states


def render_pages(home: Home, profile: Profile) -> bool:
    """Bring ``reports/`` up to date; a page that cannot be made is told, results stay."""
    store, states = Store(home, profile.name), page_states(home, profile)
    currents = {name: store.current(name) for name in states}
    keys = {name: result and result.key for name, result in currents.items()}
    failures = {name: store.failure(name) for name in states}
    hashes, folder = Hashes(home.store), CODE_ROOT / "lib" / "report"
    sources = [*home.root.glob("notebooks/*.ipynb"), *folder.rglob("*.*")]
    texts = sorted(hashes.of(path) for path in sources if path.suffix != ".pyc")
    shown = digest([states, keys, failures, texts])
    stamp = store.root / "rendered"
    if stamp.exists() and stamp.read_text() == shown and (home.root / "reports").exists():
        return True
    from lib.report.render import render_all

    try:
        index = render_all(home.root, profile.name, states)
    except Exception as error:  # noqa: BLE001 - pages never undo what notebooks finished
        told = "".join(traceback.format_exception(error)[-3:])
        print(
            f"the pages could not be made: {type(error).__name__}: {error}\n{told}", file=sys.stderr
        )
        return False
    write_atomic(stamp, shown.encode())
    print(f"pages: {index.relative_to(home.root)}")
    return True
