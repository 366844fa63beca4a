"""``run-one``: brings one node to a complete result, or says why not. Idempotent.

The same command runs under any scheduler: it exits at once when the node's key is complete.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from lib.data.files import read_json, sha256_of, write_atomic, write_json
from lib.pipeline import Blocked, NotebookFailed, RunnerError
from lib.pipeline.failure import explain, missing_space
from lib.pipeline.keys import SCHEMA, Hashes, device_class
from lib.pipeline.lease import Lease, process_stamp
from lib.pipeline.notebook import Execution, clean_text, execute_notebook, to_text
from lib.pipeline.plan import Step, examine
from lib.pipeline.profile import Home, Node, Profile
from lib.pipeline.schema import read_notebook
from lib.pipeline.store import Store, folder_bytes
from lib.pipeline.surroundings import git_state, kernel_environment, memory_bytes, title_of

__all__ = ["run_one"]

MEGA = 1_000_000


def run_one(home: Home, profile: Profile, name: str, *, force: bool, follow: bool) -> str:
    """Run one node unless it is complete; returns ``done`` or ``ran``."""
    store, hashes = Store(home, profile.name), Hashes(home.store)
    forced_at = time.time_ns()
    step = examine(home, profile, name, hashes, force=force)
    if step.state == "blocked":
        raise Blocked(step.reasons[0])
    if step.state == "done":
        store.point(name, step.key)
        hashes.save()
        return "done"
    lease = Lease(store.folder(name))
    used = [f"{i.node}/{i.key}" for i in (step.inputs or {}).values() if i.node]
    while not lease.acquire(inputs=used):
        if STOP.wait(0.2):  # another runner is at it: its result will do for us too
            raise SystemExit(143)
    try:
        store.sweep(name)
        fresh = store.result(name, step.key)
        made = fresh is not None and int(str(fresh.manifest.get("made_ns", 0))) > forced_at
        step = examine(home, profile, name, hashes, force=force and not made)
        if step.state == "blocked":
            raise Blocked(step.reasons[0])
        if step.state == "done":
            store.point(name, step.key)
            return "done"
        if step.state == "corrupt" and (bad := store.result(name, step.key)):
            store.quarantine(bad)
        check_space(store, name)
        Attempt(home, profile, step, store, lease, follow).run(hashes)
        return "ran"
    finally:
        hashes.save()
        lease.release()


def check_space(store: Store, name: str) -> None:
    """Refuse to start where the last result would not fit again."""
    last = store.current(name)
    need = int(folder_bytes(last.folder) * 1.1) if last else 0
    free = shutil.disk_usage(store.folder(name)).free
    if need > free:
        raise Blocked(
            f"disk full: the last result has {need / MEGA:.1f} MB, {free / MEGA:.1f} MB are free, "
            f"{(need - free) / MEGA:.1f} MB are missing; free space or `run_all.py gc --keep 1`"
        )


class Attempt:
    """One attempt at one node, from an empty work folder to a committed result."""

    def __init__(
        self, home: Home, profile: Profile, step: Step, store: Store, lease: Lease, follow: bool
    ) -> None:
        self.home, self.profile, self.step, self.store = home, profile, step, store
        self.lease, self.follow = lease, follow
        self.node: Node = profile.nodes[step.node]
        self.folder = store.folder(step.node)
        self.nonce = secrets.token_hex(16)
        self.started, self.clock = datetime.now(UTC), time.monotonic()
        self.deadline = self.clock + 60 * self.node.resources["minutes"]
        self.notebook = read_notebook(home.notebook(self.node.notebook))
        self.shown: tuple[object, ...] = ()
        self.execution = Execution()

    def run(self, hashes: Hashes) -> None:
        """Execute, check, commit; anything else becomes an error with a page of its own."""
        signal.signal(signal.SIGTERM, lambda *_: STOP.set())
        with self.store.work_folder(self.step.node) as work:
            try:
                finished = self.execute(work)
                self.check(work, finished)
                self.record(work, finished)
                if examine(self.home, self.profile, self.step.node, hashes).key != self.step.key:
                    raise NotebookFailed(
                        "its code, parameters or inputs changed while it ran, so the result "
                        "belongs to neither version; run again"
                    )
                if not self.lease.held():
                    raise NotebookFailed("another worker took over after this one was suspended")
                self.commit(work)
            except (RunnerError, OSError) as error:
                problem = self.problem(error, work)
                shutil.rmtree(work, ignore_errors=True)  # frees the disk for the explanation
                self.fail(problem)
                raise NotebookFailed(str(problem["message"])) from error
            finally:
                for name in ("status.json", "progress.json"):
                    (self.folder / name).unlink(missing_ok=True)

    def execute(self, work: Path) -> dict[str, Any]:
        """Run the notebook and return what ``run.finish`` left."""
        for name in ("outputs", "figures", "cwd"):
            (work / name).mkdir()
        scratch = self.store.scratch(self.step.node, self.step.key)
        scratch.mkdir(exist_ok=True)
        inputs = self.step.inputs or {}
        context = {
            "home": str(self.home.root), "profile": self.profile.name, "node": self.step.node,
            "notebook": self.node.notebook, "nonce": self.nonce, "work": str(work),
            "device": device_class(self.node), "parameters": self.step.parameters,
            "inputs": {name: str(value.path) for name, value in inputs.items()},
            "scratch": str(scratch), "progress": str(self.folder / "progress.json"),
        }  # fmt: skip
        write_json(work / "context.json", context)
        with (self.folder / "log.txt").open("w", encoding="utf-8", buffering=1) as log:
            overrides = {name: cast("dict[str, object]", self.step.parameters)[name]
                         for name in self.step.given}  # fmt: skip
            variables = kernel_environment(self.home, self.node, work)
            folders = work / "cwd", self.home.root
            run = execute_notebook(
                self.notebook, overrides, variables, *folders, log=log, watch=self.watch
            )
        self.execution = run
        log_path = self.folder / "log.txt"  # what libraries wrote past Python may hold codes
        log_path.write_text(clean_text(log_path.read_text("utf-8", "replace")), encoding="utf-8")
        if STOP.is_set():
            raise SystemExit(143)  # stopping is no failure: nothing is recorded
        if run.stopped:
            raise NotebookFailed(run.stopped)
        if run.death:
            raise NotebookFailed(
                f"the kernel died ({run.death}) with a peak memory of {run.peak_bytes / MEGA:.0f} "
                f"MB of {memory_bytes() / MEGA:.0f} MB"
                + ("; probably out of memory" if "SIGKILL" in run.death else "")
            )
        if run.error:
            raise NotebookFailed(clean_text(str(run.error))) from run.error
        skipped = [n for n, cell in enumerate(run.notebook.cells)
                   if cell.cell_type == "code" and cell.source.strip()
                   and not cell.execution_count]  # fmt: skip
        if skipped or not (work / "finish.json").exists():
            where = f"; cell {skipped[0]} ({run.titles[skipped[0]]}) never ran" if skipped else ""
            raise NotebookFailed(f"the notebook ended without `run.finish()`{where}")
        return cast("dict[str, Any]", read_json(work / "finish.json"))

    def watch(self, run: Execution) -> None:
        """Wall limit, a vanished runner, and the status that the runner shows."""
        self.execution = run
        if run.process and "kernel" not in self.lease.content:
            with contextlib.suppress(OSError):
                self.lease.note(kernel=process_stamp(run.process.pid))
        if time.monotonic() > self.deadline:
            run.stop(f"over its limit of {self.node.resources['minutes']:g} minutes")
        if STOP.is_set():
            run.stop("stopped from outside")
        if (run.cell, run.title) != self.shown:
            self.shown = (run.cell, run.title)
            status = {"cell": run.cell, "cells": run.cells, "title": run.title[:200],
                      "started": self.started.timestamp()}  # fmt: skip
            with contextlib.suppress(
                OSError
            ):  # not flushed to disk: it matters only while it is fresh
                temporary = self.folder / f".partial-status-{threading.get_ident()}"
                temporary.write_text(json.dumps(status), encoding="utf-8")
                temporary.replace(self.folder / "status.json")
            if self.follow:
                print(f"  cell {run.cell}/{run.cells}: {run.title[:100]}", file=sys.stderr)

    def check(self, work: Path, finished: dict[str, Any]) -> None:
        """Believe nothing: the nonce, every declared file, every number."""
        if finished.get("nonce") != self.nonce:
            raise NotebookFailed("finish.json is not from this run; only `run.finish()` writes it")
        missing = [name for name in finished["outputs"] if not (work / name).exists()]
        if missing:
            raise NotebookFailed(
                f"declared but not written: {', '.join(missing[:5])}; "
                "write it to the path that `run.path` gave, or do not ask for one"
            )
        for metric in finished["metrics"]:  # read_json already refuses what is not a number
            if not abs(float(metric["value"])) < float("inf"):
                raise NotebookFailed(f"metric {metric['name']} is {metric['value']}, not finite")

    def record(self, work: Path, finished: dict[str, Any]) -> None:
        """Write the record, the executed notebook and, last, the manifest."""
        run, step = self.execution, self.step
        cells = [{"index": n, "title": run.titles[n], "seconds": round(run.seconds[n], 3)}
                 for n, cell in enumerate(run.notebook.cells)
                 if cell.cell_type == "code"]  # fmt: skip
        inputs = {name: {"node": i.node, "key": i.key, "hash": i.hash,
                         "path": os.path.relpath(i.path, self.home.root)}
                  for name, i in (step.inputs or {}).items()}  # fmt: skip
        kept = {
            name: finished[name] for name in ("metrics", "tables", "figures", "note", "versions")
        }
        record = kept | {
            "schema": SCHEMA, "node": step.node, "notebook": self.node.notebook,
            "title": title_of(self.notebook), "parameters": step.parameters,
            "defaults": sorted(set(step.parameters or {}) - set(step.given)), "inputs": inputs,
            "cells": cells, "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.clock, 3), "device": finished["device"],
            "peak_memory_bytes": max(run.peak_bytes, finished["peak_memory_bytes"]),
            "gpu_peak_memory_bytes": finished["gpu_peak_memory_bytes"], "git": git_state(),
        }  # fmt: skip
        write_json(work / "record.json", record)
        write_atomic(work / "executed.ipynb", to_text(run.notebook, self.home.root).encode())
        for leftover in ("context.json", "finish.json"):
            (work / leftover).unlink()
        shutil.rmtree(work / "cwd", ignore_errors=True)
        files = {
            path.relative_to(work).as_posix(): {
                "sha256": sha256_of(path), "bytes": path.stat().st_size
            }
            for path in sorted(work.rglob("*")) if path.is_file()
        }  # fmt: skip
        manifest = {"schema": SCHEMA, "node": step.node, "profile": self.profile.name,
                    "notebook": self.node.notebook, "key": step.key, "components": step.parts,
                    "render_key": step.render_key, "files": files, "made_ns": time.time_ns(),
                    "made": datetime.now(UTC).isoformat()}  # fmt: skip
        write_json(work / "manifest.json", manifest)

    def commit(self, work: Path) -> None:
        self.store.commit(self.step.node, self.step.key, work)
        self.store.clear_failure(self.step.node)
        for scratch in self.folder.glob("scratch-*"):
            if scratch == self.store.scratch(self.step.node, self.step.key):
                shutil.rmtree(scratch, ignore_errors=True)

    def problem(self, error: RunnerError | OSError, work: Path) -> dict[str, object]:
        last = self.store.current(self.step.node)
        lack = missing_space(error, self.execution, work, last.folder if last else None)
        return {
            "node": self.step.node, "notebook": self.node.notebook, "key": self.step.key,
            "reproduce": f"python run_all.py {self.profile.name} --only {self.step.node}",
            "log": f"data/store/{self.profile.name}/{self.step.node}/log.txt",
            "when": self.started.isoformat(timespec="seconds"),
            **explain(error, self.execution, self.home.root, self.folder / "log.txt", lack),
        }  # fmt: skip

    def fail(self, problem: dict[str, object]) -> None:
        executed = self.execution.notebook
        text = to_text(executed, self.home.root) if executed else None
        with contextlib.suppress(OSError):
            self.store.set_failure(self.step.node, problem, text)


STOP = threading.Event()  # set by SIGTERM, and when the runner is gone


def watch_parent() -> None:
    """End with whoever started us: our standard input closes when they are gone."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        STOP.set()

    threading.Thread(target=wait, daemon=True).start()
