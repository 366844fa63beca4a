"""Walks the graph: examines each node when its inputs are there, and runs what has to run."""

import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter

from lib.pipeline.executors import Ended, Pool
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


def walk(
    home: Home, profile: Profile, chosen: Iterable[str], pool: Pool, reporter: Reporter, *,
    hashes: Hashes, force: bool = False, keep_going: bool = False, follow: bool = False,
) -> dict[str, Outcome]:  # fmt: skip
    """Bring all chosen nodes to a result; nodes behind a failure end as blocked.

    A node whose optional input failed runs without it.
    """
    needs = {name: profile.nodes[name].needs & set(chosen) for name in chosen}
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    words = ["--profile", profile.name, *["--force"] * force, *["--follow"] * follow]
    outcomes: dict[str, Outcome] = {}
    running: dict[Future[Ended], tuple[Step, float]] = {}
    waiting: list[Step] = []

    def settle(name: str, outcome: Outcome) -> None:
        outcomes[name] = outcome
        reporter.ended(name, outcome.state, outcome.seconds, outcome.message)
        sorter.done(name)

    while sorter.is_active():
        for name in sorter.get_ready():
            bad = [n for n in needs[name] & profile.nodes[name].requires
                   if outcomes[n].state in {"failed", "blocked"}]  # fmt: skip
            step = arrive(home, profile, name, hashes, force) if not bad else None
            if step is None:
                settle(name, Outcome("blocked", 0.0, f"needs {min(bad)}, which failed"))
            elif step.state == "blocked":
                settle(name, Outcome("blocked", 0.0, step.reasons[0]))
            elif step.state == "done":
                settle(name, Outcome("restored" if step.reasons else "done"))
            else:
                waiting.append(step)
        waiting.sort(key=lambda step: -len(profile.downstream({step.node})))  # most stands on it
        for step in list(waiting):
            node = profile.nodes[step.node]
            if not keep_going and any(o.state == "failed" for o in outcomes.values()):
                waiting.remove(step)
                settle(step.node, Outcome("blocked", 0.0, "not started: another node failed"))
            elif pool.fits(node):
                waiting.remove(step)
                running[pool.submit(node, [step.node, *words])] = step, time.monotonic()
                reporter.started(step.node, step.reasons)
        if running:
            over, _ = wait(running, timeout=0.25, return_when=FIRST_COMPLETED)
            for future in over:
                step, started = running.pop(future)
                state, message = collect(home, profile, step, hashes, future)
                settle(step.node, Outcome(state, time.monotonic() - started, message))
            reporter.tick()
    return outcomes


def arrive(home: Home, profile: Profile, name: str, hashes: Hashes, force: bool) -> Step:
    """Decide about a node whose upstream nodes have all ended."""
    step, store = examine(home, profile, name, hashes, force=force), Store(home, profile.name)
    if step.state == "done":
        store.point(name, step.key)
        store.clear_failure(name)  # what failed was another version
    elif step.state != "blocked":
        hashes.save()  # the worker reads what was learned here, also by --verify
    return step


def collect(
    home: Home, profile: Profile, step: Step, hashes: Hashes, future: "Future[Ended]"
) -> tuple[str, str]:
    """How a worker ended, judged by what is in the store and not by its word."""
    try:
        code, said = future.result()
    except Exception as error:  # noqa: BLE001 - the scheduler's own failure, whatever it is
        code, said = 1, f"{type(error).__name__}: {error}"
    if code == 0:
        now = examine(home, profile, step.node, hashes)
        if now.state == "done":
            return "ran", ""
        reasons = "; ".join(now.reasons)
        return "failed", f"the worker has other code or packages than the runner: {reasons}"
    reason = ", as the system does when memory runs out" if code == -9 else ""
    killed = f"the worker was killed by signal {-code}{reason}" if code < 0 else ""
    return "blocked" if code == 3 else "failed", said.strip() or killed
