"""The helpers of the command line: status, diff, gc, doctor, fetch."""

import argparse
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.pipeline import RunnerError, WrongUse
from lib.pipeline.keys import Hashes
from lib.pipeline.lease import Lease, read_lease
from lib.pipeline.plan import plan
from lib.pipeline.profile import Home, Profile, load_profile
from lib.pipeline.schema import nearest
from lib.pipeline.store import Store, folder_bytes

__all__ = ["diff", "doctor", "fetch", "gc", "status"]

LEAST_FREE_GB = 2.0


def parse(prog: str, words: list[str], *arguments: tuple[str, dict[str, Any]]) -> Any:
    parser = argparse.ArgumentParser(prog=f"run_all.py {prog}")
    for name, settings in arguments:
        parser.add_argument(name, **settings)
    return parser.parse_args(words)


PROFILE: tuple[str, dict[str, Any]] = ("--profile", {"default": "demo"})


def status(home: Home, words: list[str]) -> int:
    """State, key, duration and age of each node; ``--json`` for machines."""
    options = parse("status", words, ("profile", {"nargs": "?", "default": "demo"}),
                    ("--json", {"action": "store_true"}))  # fmt: skip
    profile = load_profile(home, options.profile)
    store, rows = Store(home, profile.name), []
    steps = plan(home, profile, profile.order(), Hashes(home.store), lenient=True)
    for name, step in steps.items():
        result, state = store.current(name), str(step.state)
        if read_lease(store.folder(name)) is not None:
            state = "running"
        elif state in {"run", "maybe"} and store.failure(name):
            state = "failed"
        seconds = result.record().get("seconds") if result else None
        rows.append({"node": name, "notebook": profile.nodes[name].notebook, "state": state,
                     "reasons": list(step.reasons), "key": result.key if result else None,
                     "made": result.manifest.get("made") if result else None,
                     "seconds": seconds})  # fmt: skip
    if options.json:
        print(json.dumps({"profile": profile.name, "nodes": rows}, indent=1))
        return 0
    for row in rows:
        made = str(row["made"] or "")[:16].replace("T", " ")
        why = "; ".join(map(str, as_list(row["reasons"])))
        print(
            f"{row['node']:<24} {row['state']:<8} {row['key'] or '-':<12} {made:<16} {why}".rstrip()
        )
    return 0


def find_run(store: Store, given: str) -> dict[str, Any]:
    """A run by the start of its id, or `last`, or `previous`."""
    runs = store.runs()
    if given in {"last", "previous"}:
        place = 1 if given == "last" else 2
        if len(runs) >= place:
            return runs[-place]
    found = [run for run in runs if str(run["id"]).startswith(given)]
    if len(found) != 1:
        known = [str(run["id"]) for run in runs[-8:]]
        raise WrongUse(f"{len(found)} runs of {store.profile} match {given!r}. "
                       f"{nearest(given, known)} Or write `previous last`")  # fmt: skip
    return found[0]


def diff(home: Home, words: list[str]) -> int:
    """Metrics, parameters, causes and sources that differ between two runs of a profile."""
    from lib.report.changes import compare, describe
    from lib.report.results import read_result

    options = parse("diff", words, ("old", {}), ("new", {}), PROFILE)
    store = Store(home, options.profile)
    old, new = (find_run(store, given)["nodes"] for given in (options.old, options.new))
    for name in sorted(old.keys() | new.keys()):
        keys = [run.get(name, {}).get("key") for run in (old, new)]
        if keys[0] == keys[1]:
            continue
        print(f"{name}: {keys[0] or 'no result'} -> {keys[1] or 'no result'}")
        if None in keys:
            continue
        folders = [store.folder(name) / key for key in keys]
        results = [read_result(folder) for folder in folders]
        if results[0] is None or results[1] is None:
            print("  one of the two results is gone (gc); only the keys are known")
            continue
        for line in describe(compare(results[0], results[1])):
            print(f"  {line}")
        for line in source_diff(folders[0], folders[1]):
            print(f"  {line}")
    return 0


def source_diff(old: Path, new: Path) -> list[str]:
    """nbdime on stripped sources: with outputs a diff of two notebooks can take minutes."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # 1.4 s, see notebook.py
    import io

    import nbformat
    from nbdime import diff_notebooks
    from nbdime.prettyprint import PrettyPrintConfig, pretty_print_notebook_diff

    notebooks = []
    for folder in (old, new):
        notebook = nbformat.read(folder / "executed.ipynb", as_version=4)
        for cell in notebook.cells:
            cell.metadata = {}
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        notebook.metadata = nbformat.from_dict({})
        notebooks.append(notebook)
    changes = diff_notebooks(*notebooks)
    if not changes:
        return []
    out = io.StringIO()
    config = PrettyPrintConfig(out=out, use_color=False, use_git=False, use_diff=False)
    pretty_print_notebook_diff("old", "new", notebooks[0], changes, config)
    return out.getvalue().splitlines()[4:]


def gc(home: Home, words: list[str]) -> int:
    """Delete older results, never the current one, one in use, or a running node's scratch."""
    options = parse("gc", words, ("--keep", {"type": int, "default": 2}), PROFILE)
    if options.keep < 1:
        raise WrongUse(f"--keep {options.keep}: expected 1 or more")
    store, freed = Store(home, options.profile), 0
    folders = [path for path in sorted(store.root.glob("*")) if path.is_dir()]
    leases = [read_lease(folder) for folder in folders]
    used = {str(name) for lease in leases if lease for name in as_list(lease.get("inputs"))}
    for folder in folders:
        node, lease = folder.name, Lease(folder)
        if not lease.acquire():
            continue
        current, results = store.current(node), store.results(node)
        kept = {result.key for result in results[: options.keep]} | {current and current.key}
        old = [r.folder for r in results if r.key not in kept and f"{node}/{r.key}" not in used]
        for rest in ("corrupt-*", "scratch-*", ".tmp-*"):
            old.extend(folder.glob(rest))
        freed += sum(folder_bytes(path) for path in old)
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        lease.release()
    compact_hashes(home)
    print(f"{freed / 1e6:.1f} MB freed")
    return 0


def as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def compact_hashes(home: Home) -> None:
    """Forget hashes of files that are gone."""
    hashes = Hashes(home.store)
    there = {name: entry for name, entry in hashes.known.items() if (hashes.root / name).exists()}
    hashes.path.unlink(missing_ok=True)
    hashes.fresh = there
    if home.store.is_dir():
        hashes.save()


def fetch(home: Home, words: list[str]) -> int:
    """Download what a profile needs into data/raw; the only step that uses the network."""
    from importlib import import_module

    options = parse("fetch", words, ("profile", {}), ("--allow-unpinned", {
        "action": "store_true", "help": "fetch from a branch; say what to pin"}))  # fmt: skip
    profile, fetching = load_profile(home, options.profile), import_module("lib.data.fetch")
    try:
        downloads, by_hand = fetching.read_wishes(
            profile.fetch, profile.manual, source=f"params/{profile.name}.yaml")  # fmt: skip
        if not downloads and not by_hand:
            print(f"params/{profile.name}.yaml names nothing to fetch")
        fetching.fetch_all(downloads, by_hand, home.root / "data" / "raw",
                           allow_unpinned=options.allow_unpinned, say=print)  # fmt: skip
    except fetching.FetchError as error:
        raise RunnerError(str(error)) from error
    return 0


def doctor(home: Home, words: list[str]) -> int:
    """Check what a run needs; each failing line says first what to do."""
    options = parse("doctor", words, PROFILE)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", check_python), ("packages", lambda: check_packages(home)),
        ("disk", lambda: check_disk(home)), ("store", lambda: check_store(home)),
        ("kernel", check_kernel), ("models", check_models),
        ("profile", lambda: check_profile(home, options.profile)),
    ]  # fmt: skip
    failed = False
    for name, check in checks:
        try:
            print(f"ok    {name}: {check()}")
        except (RunnerError, OSError) as error:
            failed = True
            print(f"FAIL  {name}: {error}")
    return 3 if failed else 0


def check_python() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version != "3.11":
        raise RunnerError(f"use Python 3.11 (`make environment`); this is {version}")
    return version


def check_packages(home: Home) -> str:
    pins = dict(line.split("==") for line in home.lock.read_text().splitlines() if "==" in line)
    wrong = []
    for name, pin in pins.items():
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "absent"
        if found != pin:
            wrong.append(f"{name} is {found}, the lock says {pin}")
    if wrong:
        raise RunnerError(f"run `make environment`: {len(wrong)} differ: {'; '.join(wrong[:5])}")
    return f"all {len(pins)} as in {home.lock.name}"


def check_disk(home: Home) -> str:
    free = shutil.disk_usage(home.root).free / 1e9
    if free < LEAST_FREE_GB:
        raise RunnerError(f"free some space or `run_all.py gc --keep 1`: {free:.1f} GB are free, "
                          f"expected {LEAST_FREE_GB:g} GB")  # fmt: skip
    return f"{free:.0f} GB free"


def check_store(home: Home) -> str:
    place = home.store if home.store.exists() else home.root
    try:
        with tempfile.TemporaryFile(dir=place):
            return "can be written"
    except OSError as error:
        raise RunnerError(
            f"give yourself write permission on {place.name}/: {error.strerror}"
        ) from None


def check_kernel() -> str:
    try:
        return f"ipykernel {importlib.metadata.version('ipykernel')}, started from this Python"
    except importlib.metadata.PackageNotFoundError:
        raise RunnerError("run `make environment`: ipykernel is not installed") from None


def check_models() -> str:
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    count = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    return f"{count} model(s) in the Hugging Face cache; runs never download"


def check_profile(home: Home, name: str) -> str:
    profile: Profile = load_profile(home, name)
    steps = plan(home, profile, profile.order(), Hashes(home.store), lenient=True)
    wrong = [step.reasons[0] for step in steps.values() if step.state == "blocked"]
    if wrong:
        raise RunnerError(f"correct {len(wrong)} node(s): {wrong[0]}")
    return f"{len(steps)} nodes of {name} are described correctly"
