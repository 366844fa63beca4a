"""Walks the graph: examines each node when its inputs are there, and runs what has to run."""

import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from lib.pipeline.executors import Pool, worker_command
from lib.pipeline.keys import Hashes
from lib.pipeline.plan import Step, examine
from lib.pipeline.profile import Home, Profile
from lib.pipeline.show import Reporter
from lib.pipeline.store import Store

__all__ = ["Outcome", "walk"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one node ended: done, restored, ran, failed or blocked."""

    state: str
    seconds: float = 0.0
    message: str = ""


@dataclass
class Walk:
    """The state of one walk: what runs since when, and how nodes ended."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: dict["Future[tuple[int, str]]", tuple[Step, float]] = field(default_factory=dict)
    waiting: list[Step] = field(default_factory=list)
    failed: bool = False


def walk(
    home: Home, profile: Profile, chosen: Iterable[str], pool: Pool, reporter: Reporter, *,
    hashes: Hashes, force: bool = False, keep_going: bool = False, follow: bool = False,
) -> dict[str, Outcome]:  # fmt: skip
    """Bring all chosen nodes to a result; nodes behind a failure end as blocked.

    A node whose optional input failed runs without it.
    """
    names = set(chosen)
    sorter = TopologicalSorter({name: profile.nodes[name].needs & names for name in names})
    sorter.prepare()
    store, state = Store(home, profile.name), Walk()

    def settle(name: str, outcome: Outcome) -> None:
        state.outcomes[name] = outcome
        state.failed |= outcome.state == "failed"
        reporter.ended(name, outcome.state, outcome.seconds, outcome.message)
        sorter.done(name)

    def arrive(name: str) -> None:
        """Decide about a node whose upstream nodes have all ended."""
        bad = [need for need in profile.nodes[name].requires & names
               if state.outcomes[need].state in {"failed", "blocked"}]  # fmt: skip
        if bad:
            return settle(name, Outcome("blocked", 0.0, f"needs {sorted(bad)[0]}, which failed"))
        step = examine(home, profile, name, hashes, force=force)
        if step.state == "blocked":
            return settle(name, Outcome("blocked", 0.0, step.reasons[0]))
        if step.state == "done":
            store.point(name, step.key)
            if store.failure(name):
                store.clear_failure(name)  # what failed was another version
            return settle(name, Outcome("restored" if step.reasons else "done"))
        hashes.save()  # the worker reads what was learned here, also by --verify
        state.waiting.append(step)
        return None

    def collect(future: "Future[tuple[int, str]]") -> None:
        step, started = state.running.pop(future)
        seconds = time.monotonic() - started
        try:
            code, said = future.result()
        except Exception as error:  # noqa: BLE001 - the scheduler's own failure, whatever it is
            code, said = 1, f"{type(error).__name__}: {error}"
        if code == 0:
            now = examine(home, profile, step.node, hashes)
            if now.state == "done":
                return settle(step.node, Outcome("ran", seconds))
            said = (
                f"the worker has other code or packages than the runner: {'; '.join(now.reasons)}"
            )
        message = said.strip() or (f"the worker was killed by signal {-code}" if code < 0 else "")
        return settle(step.node, Outcome("blocked" if code == 3 else "failed", seconds, message))

    while sorter.is_active():
        for name in sorter.get_ready():
            arrive(name)
        for step in list(state.waiting):
            node = profile.nodes[step.node]
            if state.failed and not keep_going:
                state.waiting.remove(step)
                settle(step.node, Outcome("blocked", 0.0, "not started: another node failed"))
            elif pool.fits(node):
                state.waiting.remove(step)
                command = worker_command(profile.name, step.node, force=force, follow=follow)
                state.running[pool.submit(node, command)] = (step, time.monotonic())
                reporter.started(step.node, step.reasons)
        if state.running:
            over, _ = wait(state.running, timeout=0.25, return_when=FIRST_COMPLETED)
            for future in over:
                collect(future)
            reporter.tick()
    return state.outcomes
