"""The command line: ``run_all.py [PROFILE] ...`` and its helpers.

Exit codes: 0 done, 1 a node failed, 2 wrong use, 3 blocked.
"""

import argparse
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from lib.pipeline import RunnerError, WrongUse, tools
from lib.pipeline.executors import DaskPool, LocalPool, Pool, end_all
from lib.pipeline.keys import Hashes
from lib.pipeline.pages import render_pages
from lib.pipeline.plan import Step, node_parameters, plan, select
from lib.pipeline.profile import Home, find_home, load_profile
from lib.pipeline.show import Reporter
from lib.pipeline.store import Json, Store
from lib.pipeline.walk import Outcome, walk

__all__ = ["main"]

CHOICES = {
    "only": "these nodes, with the newest finished inputs",
    "from": "this node and all that stands on it",
    "until": "this node and all that it stands on",
}
SWITCHES = {
    "force": "run chosen nodes even if complete",
    "explain": "say what would run and why; changes nothing",
    "dry-run": "the same",
    "keep-going": "after a failure, run what does not need it",
    "verify": "hash every stored file again",
    "follow": "show each cell and what workers say",
    "no-pages": "leave reports/ as it is",
}


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
    for option, told in CHOICES.items():
        parser.add_argument(f"--{option}", action="append", default=[], metavar="NODE", help=told)
    for option, told in SWITCHES.items():
        parser.add_argument(f"--{option}", action="store_true", help=told)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="CPU tokens")
    parser.add_argument("--executor", default="local", help="local, or dask=ADDRESS")
    options = parser.parse_args(words)
    profile = load_profile(home, options.profile)
    named = [set(",".join(getattr(options, kind)).split(",")) - {""} for kind in CHOICES]
    chosen, hashes = select(profile, *named), Hashes(home.store, trust=not options.verify)
    if options.explain or options.dry_run:
        return explain(plan(home, profile, chosen, hashes, force=options.force))
    for name in chosen:  # every wrong parameter is told before anything starts
        node_parameters(home, profile.nodes[name])
    store, began, started = Store(home, profile.name), time.monotonic(), datetime.now(UTC)
    pool = make_pool(home, options)
    live = sys.stdout.isatty() and not options.follow
    reporter = Reporter(store, profile, chosen, live=live)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a KeyboardInterrupt too
    try:
        outcomes = walk(home, profile, chosen, pool, reporter, hashes=hashes, force=options.force,
                        keep_going=options.keep_going, follow=options.follow)  # fmt: skip
    finally:
        end_all(10.0)
        pool.stop()
        reporter.close()
        hashes.save()
    seconds, states = time.monotonic() - began, Counter(o.state for o in outcomes.values())
    if states.keys() - {"done", "blocked"}:
        store.add_run(describe_run(store, outcomes, started, seconds))
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"{told or 'no nodes'} in {seconds:.1f} s")
    code = 1 if states["failed"] else 3 if states["blocked"] else 0
    return code if options.no_pages or render_pages(home, profile) else max(code, 1)


def explain(steps: Mapping[str, Step]) -> int:
    """Print the verdict on each node."""
    width = max(map(len, steps), default=0)
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


def describe_run(
    store: Store, outcomes: Mapping[str, Outcome], started: datetime, seconds: float
) -> Json:
    """One line of the run history; nodes that were not chosen stand as in the run before."""
    nodes: Json = dict(store.runs()[-1]["nodes"]) if store.runs() else {}
    for name, outcome in outcomes.items():
        result = store.current(name)
        nodes[name] = {"key": result.key if result else None, "state": outcome.state,
                       "seconds": round(outcome.seconds, 2)}  # fmt: skip
    name = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return {"id": name, "nodes": nodes, "seconds": round(seconds, 2),
            "started": started.isoformat(timespec="seconds")}  # fmt: skip


def command_run_one(home: Home, words: list[str]) -> int:
    """The worker: one node to a complete result; exits at once when it is complete."""
    switch = {"action": "store_true"}
    options = tools.parse("run-one", words, node={}, __profile=tools.PROFILE, __force=switch,
                          __follow=switch, __leave_with_parent=switch)  # fmt: skip
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
