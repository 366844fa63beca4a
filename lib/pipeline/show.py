"""Progress for people: a live table on a terminal, lines and a heartbeat in a pipe."""

import time
from collections.abc import Sequence
from typing import Any

from lib.pipeline.failure import describe_failure
from lib.pipeline.keys import device_class
from lib.pipeline.notebook import clean_text
from lib.pipeline.plan import some
from lib.pipeline.profile import Profile
from lib.pipeline.store import Store, read_mapping

__all__ = ["Reporter"]

HEARTBEAT_SECONDS = 30.0
MARKS = {"done": "·", "restored": "↺", "ran": "✓", "failed": "✗", "blocked": "○"}


class Reporter:
    """Says what happens. ``live`` redraws a table, otherwise each event is one line."""

    def __init__(
        self, store: Store, profile: Profile, chosen: Sequence[str], *, live: bool
    ) -> None:
        self.store, self.profile, self.chosen = store, profile, chosen
        self.began = self.beat = time.monotonic()
        self.running: dict[str, float] = {}
        self.earlier: dict[str, float] = {}
        self.over: dict[str, str] = {}
        self.live: Any = None
        if live:
            from rich.live import Live

            self.live = Live(refresh_per_second=4, transient=True)
            self.live.start()

    def say(self, text: str) -> None:
        if self.live:
            self.live.console.print(clean_text(text), markup=False, highlight=False)
        else:
            print(clean_text(text), flush=True)

    def expected(self, name: str) -> float:
        """How long the node took before, in seconds; 0 where nobody knows."""
        earlier = self.store.results(name)
        return float(earlier[0].record.get("seconds", 0.0)) if earlier else 0.0

    def started(self, name: str, reasons: Sequence[str]) -> None:
        self.running[name] = time.monotonic()
        earlier = self.earlier[name] = self.expected(name)
        about = f", about {earlier:.0f} s" if earlier else ""
        node, shown = self.profile.nodes[name], some(reasons, between="; ")
        self.say(f"▸ {name}: {node.notebook} ({shown}{about})")
        if node.resources["gpu"] and device_class(node) == "cpu":
            self.say(f"  {name} asks for a GPU and there is none: it runs on the CPU, far longer")

    def ended(self, name: str, state: str, seconds: float, message: str) -> None:
        self.running.pop(name, None)
        self.over[name] = state
        if state != "done":
            self.say(f"{MARKS[state]} {name}: {state}" + (f" {seconds:.1f} s" if seconds else ""))
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
        folder, spent = self.store.folder(name), time.monotonic() - self.running[name]
        status, progress = (read_mapping(folder / f) for f in ("status.json", "progress.json"))
        parts = [f"{self.profile.nodes[name].notebook}.ipynb, {spent:.0f} s"]
        if status:
            parts.append(f"cell {status['cell'] + 1}/{status['cells']} {status['title'][:60]!r}")
        if progress:
            numbers = " ".join(f"{k} {v:.4g}" for k, v in progress["numbers"].items())
            parts.append(f"{progress['done']:g}/{progress['total']:g} {numbers}".strip())
        return ", ".join(parts)

    def table(self) -> Any:
        """The nodes that run, until when if that is known, and how many are over."""
        from rich.table import Table
        from rich.text import Text

        table = Table("node", "state", "what", "expected end", box=None, pad_edge=False)
        for name, began in self.running.items():
            left = self.earlier[name] - (time.monotonic() - began)
            clock = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
            until = f"{clock}, in {left:.0f} s" if left > 0 else ""
            table.add_row(name, "running", Text(clean_text(self.activity(name))), until)
        waiting = [n for n in self.chosen if n not in self.over and n not in self.running]
        if waiting:
            table.add_row("", "waiting", Text(some(waiting)), "")
        over, spent = len(self.over), time.monotonic() - self.began
        table.add_row("", f"{over}/{len(self.chosen)}", f"over after {spent:.0f} s", "")
        return table

    def close(self) -> None:
        if self.live:
            self.live.stop()
