"""The helpers of the command line: status, diff, gc, doctor, fetch."""

import argparse
import fcntl
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.pipeline import RunnerError, WrongUse
from lib.pipeline.keys import Hashes
from lib.pipeline.lease import Lease, read_lease
from lib.pipeline.plan import plan
from lib.pipeline.profile import Home, load_profile
from lib.pipeline.schema import nearest
from lib.pipeline.store import Json, Store, folder_bytes

__all__ = ["diff", "doctor", "fetch", "gc", "parse", "status"]

LEAST_FREE_GB = 2.0
PROFILE = {"default": "demo"}


def parse(prog: str, words: list[str], **arguments: Json) -> argparse.Namespace:
    """Arguments by name; ``__name`` is the option ``--name``."""
    parser = argparse.ArgumentParser(prog=f"run_all.py {prog}")
    for name, settings in arguments.items():
        flag = "--" + name[2:].replace("_", "-") if name.startswith("__") else name
        parser.add_argument(flag, **settings)
    return parser.parse_args(words)


def status(home: Home, words: list[str]) -> int:
    """State, key, duration and age of each node; ``--json`` for machines."""
    options = parse("status", words, profile={"nargs": "?", **PROFILE},
                    __json={"action": "store_true"})  # fmt: skip
    profile = load_profile(home, options.profile)
    store, rows = Store(home, profile.name), list[Json]()
    steps = plan(home, profile, profile.order(), Hashes(home.store), lenient=True)
    for name, step in steps.items():
        result, state = store.current(name), str(step.state)
        if read_lease(store.folder(name)) is not None:
            state = "running"
        elif state in {"run", "maybe"} and store.failure(name):
            state = "failed"
        rows.append({"node": name, "notebook": profile.nodes[name].notebook, "state": state,
                     "reasons": step.reasons, "key": result.key if result else None,
                     "made": result.manifest.get("made") if result else None,
                     "seconds": result.record.get("seconds") if result else None})  # fmt: skip
    if options.json:
        print(json.dumps({"profile": profile.name, "nodes": rows}, indent=1))
        return 0
    for row in rows:
        made = str(row["made"] or "")[:16].replace("T", " ")
        took = f"{row['seconds']:.0f} s" if isinstance(row["seconds"], float) else ""
        line = f"{row['node']:<24} {row['state']:<8} {row['key'] or '-':<12} {made:<16} {took:>8}"
        print(f"{line}  {'; '.join(row['reasons'])}".rstrip())
    return 0


def find_run(store: Store, given: str) -> Json:
    """A run by the start of its id, or `last`, or `previous`."""
    runs, place = store.runs(), {"last": 1, "previous": 2}.get(given, 0)
    if place and len(runs) >= place:
        return runs[-place]
    found = [run for run in runs if str(run["id"]).startswith(given)]
    if len(found) != 1:
        hint = nearest(given, [str(run["id"]) for run in runs[-8:]])
        raise WrongUse(f"{len(found)} runs of {store.profile} match {given!r}. {hint} "
                       "Or write `previous last`")  # fmt: skip
    return found[0]


def diff(home: Home, words: list[str]) -> int:
    """Metrics, parameters, causes and sources that differ between two runs of a profile."""
    from lib.report.changes import compare, describe

    options = parse("diff", words, old={}, new={}, __profile=PROFILE)
    store = Store(home, options.profile)
    old, new = (find_run(store, given)["nodes"] for given in (options.old, options.new))
    for name in sorted(old.keys() | new.keys()):
        before, after = ((run.get(name) or {}).get("key") for run in (old, new))
        if before == after:
            continue
        print(f"{name}: {before or 'no result'} -> {after or 'no result'}")
        if before is None or after is None:
            continue
        first, second = store.result(name, before), store.result(name, after)
        if first is None or second is None:
            print("  one of the two results is gone (gc); only the keys are known")
            continue
        for line in [*describe(compare(first, second)), *source_diff(first.folder, second.folder)]:
            print(f"  {line}")
    return 0


def source_diff(old: Path, new: Path) -> list[str]:
    """nbdime on stripped sources: with outputs a diff of two notebooks can take minutes."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # 1.4 s, see notebook.py
    import io

    import nbformat
    from nbdime import diff_notebooks
    from nbdime.prettyprint import PrettyPrintConfig, pretty_print_notebook_diff

    notebooks = [nbformat.read(folder / "executed.ipynb", as_version=4) for folder in (old, new)]
    for notebook in notebooks:
        notebook.metadata = nbformat.from_dict({})
        for cell in notebook.cells:
            cell.metadata = {}
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
    out, changes = io.StringIO(), diff_notebooks(*notebooks)
    if changes:
        config = PrettyPrintConfig(out=out, use_color=False, use_git=False, use_diff=False)
        pretty_print_notebook_diff("old", "new", notebooks[0], changes, config)
    return out.getvalue().splitlines()[4:]


def gc(home: Home, words: list[str]) -> int:
    """Delete older results, never the current one, one in use, or a running node's scratch."""
    options = parse("gc", words, __keep={"type": int, "default": 2}, __profile=PROFILE)
    if options.keep < 1:
        raise WrongUse(f"--keep {options.keep}: expected 1 or more")
    store, freed, hashes = Store(home, options.profile), 0, Hashes(home.store)
    folders = [path for path in sorted(store.root.glob("*")) if path.is_dir()]
    leases = [read_lease(folder) or {} for folder in folders]
    used: set[Any] = {name for lease in leases for name in lease.get("inputs", ())}  # type: ignore[attr-defined]
    for folder in folders:
        node, lease = folder.name, Lease(folder)
        if not lease.acquire():
            continue
        current, results = store.current(node), store.results(node)
        kept = {result.key for result in results[: options.keep]} | {current and current.key}
        old = [r.folder for r in results if r.key not in kept and f"{node}/{r.key}" not in used]
        old += [path for rest in ("corrupt-*", "scratch-*", ".tmp-*") for path in folder.glob(rest)]
        freed += sum(folder_bytes(path) for path in old)
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        lease.release()
    hashes.fresh = {name: e for name, e in hashes.known.items() if (hashes.root / name).exists()}
    hashes.path.unlink(missing_ok=True)  # forgets the hashes of files that are gone
    hashes.save()
    print(f"{freed / 1e6:.1f} MB freed")
    return 0


def fetch(home: Home, words: list[str]) -> int:
    """Download what a profile needs into data/raw; the only step that uses the network."""
    from importlib import import_module

    unpinned = {"action": "store_true", "help": "fetch from a branch; say what to pin"}
    options = parse("fetch", words, profile={}, __allow_unpinned=unpinned)
    profile, fetching = load_profile(home, options.profile), import_module("lib.data.fetch")
    source = f"params/{profile.name}.yaml"
    try:
        downloads, by_hand = fetching.read_wishes(profile.fetch, profile.manual, source=source)
        if not downloads and not by_hand:
            print(f"{source} names nothing to fetch")
        fetching.fetch_all(downloads, by_hand, home.root / "data" / "raw",
                           allow_unpinned=options.allow_unpinned, say=print)  # fmt: skip
    except fetching.FetchError as error:
        raise RunnerError(str(error)) from error
    return 0


def doctor(home: Home, words: list[str]) -> int:
    """Check what a run needs; each failing line says first what to do."""
    options = parse("doctor", words, __profile=PROFILE)
    failed = False
    for name, good, answer in findings(home, options.profile):
        failed |= not good
        print(f"{'ok   ' if good else 'FAIL '} {name}: {answer}")
    return 3 if failed else 0


def findings(home: Home, name: str) -> Iterator[tuple[str, bool, str]]:
    """For each check its name, whether all is well, and what to know or to do."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    advice = "" if python == "3.11" else "use Python 3.11 (`make environment`); this is "
    yield "python", not advice, advice + python

    pins = dict(line.split("==") for line in home.lock.read_text().splitlines() if "==" in line)
    there = {package: installed(package) for package in pins}
    wrong = [f"{package} is {there[package]}, the lock says {pin}"
             for package, pin in pins.items() if there[package] != pin]  # fmt: skip
    yield "packages", not wrong, (
        f"run `make environment`: {len(wrong)} differ: {'; '.join(wrong[:5])}" if wrong
        else f"all {len(pins)} as in {home.lock.name}"
    )  # fmt: skip

    free = shutil.disk_usage(home.root).free / 1e9
    few = f"free some space or `run_all.py gc --keep 1`; expected {LEAST_FREE_GB:g} GB: "
    yield "disk", free >= LEAST_FREE_GB, few * (free < LEAST_FREE_GB) + f"{free:.1f} GB free"

    place = home.store if home.store.exists() else home.root
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield "store", True, "can be written and locked"
    except OSError as error:
        advice = f"give yourself write permission on {place.name}/, where files can be locked"
        yield "store", False, f"{advice}: {error.strerror}"

    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    models = len(list(cache.glob("models--*")))
    yield "models", True, f"{models} model(s) in the Hugging Face cache; runs never download"

    try:
        profile = load_profile(home, name)
        steps = plan(home, profile, profile.order(), Hashes(home.store), lenient=True)
        bad = [step.reasons[0] for step in steps.values() if step.state == "blocked"]
        fine = f"{len(steps)} nodes of {name} are described correctly"
        yield "profile", not bad, f"correct {len(bad)} node(s): {bad[0]}" if bad else fine
    except RunnerError as error:
        yield "profile", False, str(error)


def installed(package: str) -> str:
    """The version of a package without its local tag, or `absent`."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "absent"
