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
    store, states = Store(home, profile.name), dict[str, dict[str, object]]()
    steps = plan(home, profile, profile.order(), Hashes(home.store), lenient=True)
    for name, step in steps.items():
        state: str = step.state
        if state in {"run", "maybe"}:
            state = "stale" if store.current(name) else "not run"
        if state != "done" and store.failure(name):
            state = "failed"
        states[name] = {
            "state": state, "reason": "; ".join(step.reasons),
            "notebook": profile.nodes[name].notebook, "uses": sorted(profile.nodes[name].needs),
            "used_by": sorted(n for n, other in profile.nodes.items() if name in other.needs),
        }  # fmt: skip
    return states


def render_pages(home: Home, profile: Profile) -> bool:
    """Bring ``reports/`` up to date; a page that cannot be made is told, results stay."""
    store, hashes = Store(home, profile.name), Hashes(home.store)
    states = page_states(home, profile)
    keys = {name: result.key for name in states if (result := store.current(name))}
    failures = {name: store.failure(name) for name in states}
    sources = [*home.root.glob("notebooks/*.ipynb"), *(CODE_ROOT / "lib/report").rglob("*.*")]
    texts = sorted(hashes.of(path) for path in sources if path.suffix != ".pyc")
    shown, stamp = digest([states, keys, failures, texts]), store.root / "rendered"
    if stamp.exists() and stamp.read_text() == shown and (home.root / "reports").exists():
        return True
    try:
        from lib.report.render import render_all

        index = render_all(home.root, profile.name, states)
    except Exception as error:  # noqa: BLE001 - pages never undo what notebooks finished
        told = "".join(traceback.format_exception(error)[-3:])
        print(f"the pages could not be made: {error!r}\n{told}", file=sys.stderr)
        return False
    write_atomic(stamp, shown.encode())
    print(f"pages: {index.relative_to(home.root)}")
    return True
