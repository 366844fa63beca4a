"""Progress for people: a live table on a terminal, lines and a heartbeat in a pipe."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lib.pipeline.failure import describe_failure
from lib.pipeline.notebook import clean_text
from lib.pipeline.profile import Profile
from lib.pipeline.store import Store

__all__ = ["Reporter"]

HEARTBEAT_SECONDS = 30.0
MARKS = {"done": "·", "restored": "↺", "ran": "✓", "failed": "✗", "blocked": "○"}


class Reporter:
    """Says what happens. ``live`` redraws a table, otherwise each event is one line."""

    def __init__(
        self, store: Store, profile: Profile, chosen: Sequence[str], *, live: bool
    ) -> None:
        self.store, self.profile, self.chosen = store, profile, chosen
        self.began = time.monotonic()
        self.running: dict[str, float] = {}
        self.over: dict[str, tuple[str, float]] = {}
        self.beat = time.monotonic()
        self.live: Any = None
        self.earlier: dict[str, float] = {}
        if live:
            from rich.live import Live

            self.live = Live(refresh_per_second=4, transient=True)
            self.live.start()

    def say(self, text: str) -> None:
        text = clean_text(text)
        if self.live:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def started(self, name: str, reasons: Sequence[str]) -> None:
        self.running[name] = time.monotonic()
        result = self.store.current(name)
        with suppress(OSError, ValueError, KeyError, TypeError):
            self.earlier[name] = float(str(result.record()["seconds"])) if result else 0.0
        expected = f", about {self.earlier[name]:.0f} s" if self.earlier.get(name) else ""
        shown = "; ".join(reasons[:3]) + (f" and {len(reasons) - 3} more" if reasons[3:] else "")
        self.say(f"▸ {name}: {self.profile.nodes[name].notebook} ({shown}{expected})")

    def ended(self, name: str, state: str, seconds: float, message: str) -> None:
        self.running.pop(name, None)
        self.over[name] = (state, seconds)
        spent = f" {seconds:.1f} s" if seconds else ""
        if state != "done":
            self.say(f"{MARKS[state]} {name}: {state}{spent}")
        if state == "failed":
            self.say(describe_failure(self.store, name, message))
        elif message:
            self.say(f"    {message}")

    def tick(self) -> None:
        now = time.monotonic()
        if self.live:
            self.live.update(self.table())
        elif now - self.beat > HEARTBEAT_SECONDS:
            self.beat = now
            for name in self.running:
                self.say(f"… {name}: {self.activity(name)}")

    def activity(self, name: str) -> str:
        """Notebook, cell and training progress of a running node."""
        status, progress = {}, {}
        with suppress(OSError, ValueError):
            status = json.loads((self.store.folder(name) / "status.json").read_text("utf-8"))
        with suppress(OSError, ValueError):
            progress = json.loads((self.store.folder(name) / "progress.json").read_text("utf-8"))
        spent = time.monotonic() - self.running[name]
        parts = [f"{self.profile.nodes[name].notebook}.ipynb, {spent:.0f} s"]
        if status:
            parts.append(f"cell {status['cell'] + 1}/{status['cells']} {status['title'][:60]!r}")
        if progress:
            numbers = " ".join(f"{k} {v:.4g}" for k, v in progress["numbers"].items())
            parts.append(f"{progress['done']:g}/{progress['total']:g} {numbers}".strip())
        return ", ".join(parts)

    def table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("node", "state", "what", "left"):
            table.add_column(column)
        for name in self.chosen:
            if name in self.running:
                left = self.earlier.get(name, 0) - (time.monotonic() - self.running[name])
                rest = f"{left:.0f} s" if left > 0 else ""
                table.add_row(name, "running", Text(clean_text(self.activity(name))), rest)
        finished, total = len(self.over), len(self.chosen)
        table.add_row("", f"{finished}/{total}", f"{time.monotonic() - self.began:.0f} s", "")
        return table

    def close(self) -> None:
        if self.live:
            self.live.stop()
