"""The command line: ``run_all.py [PROFILE] ...`` and its helpers.

Exit codes: 0 done, 1 a node failed, 2 wrong use, 3 blocked.
"""

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from lib.pipeline import RunnerError, WrongUse, tools
from lib.pipeline.executors import DaskPool, LocalPool, Pool, end_all
from lib.pipeline.keys import Hashes
from lib.pipeline.pages import render_pages
from lib.pipeline.plan import Step, node_parameters, plan, select
from lib.pipeline.profile import Home, Profile, find_home, load_profile
from lib.pipeline.show import Reporter
from lib.pipeline.store import Store
from lib.pipeline.walk import Outcome, walk

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Dispatch, and turn every foreseen problem into one message and an exit code."""
    commands: dict[str, Callable[[Home, list[str]], int]] = {
        "run-one": command_run_one, "doctor": tools.doctor, "status": tools.status,
        "diff": tools.diff, "gc": tools.gc, "fetch": tools.fetch, "init": command_init,
    }  # fmt: skip
    words, home = list(arguments), find_home()
    try:
        if words and words[0] in commands:
            return commands[words[0]](home, words[1:])
        return command_run(home, words)
    except RunnerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        place = str(error.filename or "").replace(f"{home.root}/", "")
        print(f"{error.strerror}: {place}; see `run_all.py doctor`", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; finished nodes are kept", file=sys.stderr)
        return 1


def command_run(home: Home, words: list[str]) -> int:
    """Run a profile, or say what would run and why."""
    parser = argparse.ArgumentParser(
        prog="run_all.py",
        description="Run the notebooks of a profile: only what is not complete. "
        "Also: doctor, status, diff RUN_A RUN_B, gc --keep N, fetch PROFILE, run-one NODE, "
        "init NAME --clicks FILE (a profile for your own data).",
    )
    parser.add_argument("profile", nargs="?", default="demo", help="params/PROFILE.yaml")
    for option, help_text in {
        "only": "these nodes, with the newest finished inputs",
        "from": "this node and all that stands on it",
        "until": "this node and all that it stands on",
    }.items():
        parser.add_argument(f"--{option}", action="append", default=[], metavar="NODE",
                            dest=f"nodes_{option}", help=help_text)  # fmt: skip
    for option, help_text in {
        "force": "run chosen nodes even if complete",
        "explain": "say what would run and why; changes nothing",
        "dry-run": "the same",
        "keep-going": "after a failure, run what does not need it",
        "verify": "hash every stored file again",
        "follow": "show each cell and what workers say",
        "no-pages": "leave reports/ as it is",
    }.items():
        parser.add_argument(f"--{option}", action="store_true", help=help_text)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="CPU tokens")
    parser.add_argument("--executor", default="local", help="local, or dask=ADDRESS")
    options = parser.parse_args(words)
    profile = load_profile(home, options.profile)
    chosen = select(profile, *(names(getattr(options, f"nodes_{kind}"))
                               for kind in ("only", "from", "until")))  # fmt: skip
    hashes = Hashes(home.store, trust=not options.verify)
    if options.explain or options.dry_run:
        return explain(plan(home, profile, chosen, hashes, force=options.force))
    return run_profile(home, profile, chosen, hashes, options)


def names(given: Sequence[str]) -> set[str]:
    return {name for part in given for name in part.split(",") if name}


def explain(steps: dict[str, Step]) -> int:
    """Print the verdict on each node."""
    width = max((len(name) for name in steps), default=0)
    for name, step in steps.items():
        print(f"{name:<{width}}  {step.state.upper():<7}  {'; '.join(step.reasons)}".rstrip())
    return 3 if any(step.state == "blocked" for step in steps.values()) else 0


def make_pool(home: Home, options: argparse.Namespace) -> Pool:
    kind, _, address = options.executor.partition("=")
    if kind == "dask" and address:
        return DaskPool(home, address)
    if options.executor != "local":
        raise WrongUse(f"--executor {options.executor}: expected `local` or `dask=ADDRESS`")
    if options.workers < 1:
        raise WrongUse(f"--workers {options.workers}: expected 1 or more")
    return LocalPool(home, options.workers, options.follow)


def run_profile(
    home: Home, profile: Profile, chosen: list[str], hashes: Hashes, options: argparse.Namespace
) -> int:
    """Walk the graph, write the run's history, make the pages, tell the result."""
    store, began, started = Store(home, profile.name), time.monotonic(), datetime.now(UTC)
    for name in chosen:  # every wrong parameter is told before anything starts
        node_parameters(home, profile.nodes[name])
    live = sys.stdout.isatty() and not options.follow
    pool = make_pool(home, options)
    reporter = Reporter(store, profile, chosen, live=live)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        outcomes = walk(home, profile, chosen, pool, reporter, hashes=hashes, force=options.force,
                        keep_going=options.keep_going, follow=options.follow)  # fmt: skip
    finally:
        end_all(10.0)
        pool.stop()
        reporter.close()
        hashes.save()
    busy = {name for name, outcome in outcomes.items() if outcome.state not in {"done", "blocked"}}
    seconds = time.monotonic() - began
    if busy:
        store.add_run(describe_run(store, outcomes, started, seconds))
    code = tell(outcomes, seconds)
    return code if options.no_pages or render_pages(home, profile) else max(code, 1)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def describe_run(
    store: Store, outcomes: dict[str, Outcome], started: datetime, seconds: float
) -> dict[str, object]:
    """One line of the run history, with the keys before and after."""
    last = store.runs()[-1]["nodes"] if store.runs() else {}
    nodes: dict[str, Any] = dict(last) if isinstance(last, dict) else {}
    previous = {name: node["key"] for name, node in nodes.items()}
    for name, outcome in outcomes.items():
        result = store.current(name)
        nodes[name] = {"key": result.key if result else None, "state": outcome.state,
                       "seconds": round(outcome.seconds, 2)}  # fmt: skip
    stamp = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return {"id": stamp, "started": started.isoformat(timespec="seconds"), "nodes": nodes,
            "seconds": round(seconds, 2), "previous": previous}  # fmt: skip


def tell(outcomes: dict[str, Outcome], seconds: float) -> int:
    counts: dict[str, int] = {}
    for outcome in outcomes.values():
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    print(f"{told or 'no nodes'} in {seconds:.1f} s")
    if "failed" in counts:
        return 1
    return 3 if "blocked" in counts else 0


def command_run_one(home: Home, words: list[str]) -> int:
    """The worker: one node to a complete result; exits at once when it is complete."""
    parser = argparse.ArgumentParser(prog="run_all.py run-one")
    parser.add_argument("node")
    parser.add_argument("--profile", default="demo")
    for option in ("--force", "--follow", "--leave-with-parent"):
        parser.add_argument(option, action="store_true")
    options = parser.parse_args(words)
    profile = load_profile(home, options.profile)
    select(profile, {options.node}, set(), set())
    from lib.pipeline.worker import run_one, watch_parent

    if options.leave_with_parent:
        watch_parent()
    state = run_one(home, profile, options.node, force=options.force, follow=options.follow)
    print(f"{options.node}: {state}")
    return 0


def command_init(home: Home, words: list[str]) -> int:
    """A profile for a person's own file."""
    from lib.studies.proposal import init

    try:
        for line in init(home.root, words):
            print(line, flush=True)
    except ValueError as error:
        raise WrongUse(str(error)) from error
    return 0
