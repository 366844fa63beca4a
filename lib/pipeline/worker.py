"""``run-one``: brings one node to a complete result, or says why not. Idempotent.

The same command runs under any scheduler: it exits at once when the node's key is complete.
"""

import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from lib.data.files import read_json, sha256_of, write_atomic, write_json
from lib.pipeline import Blocked, NotebookFailed, RunnerError
from lib.pipeline.failure import explain, missing_space
from lib.pipeline.keys import SCHEMA, Hashes, device_class
from lib.pipeline.lease import Lease, process_stamp
from lib.pipeline.notebook import LATE, Execution, clean_text, to_text
from lib.pipeline.plan import Step, examine
from lib.pipeline.profile import Home, Profile
from lib.pipeline.schema import read_notebook
from lib.pipeline.store import Json, Store, mapping
from lib.pipeline.surroundings import git_state, kernel_environment, memory_bytes, title_of

__all__ = ["run_one", "watch_parent"]

MEGA = 1_000_000
KEPT = ("metrics", "tables", "figures", "note", "versions", "device", "gpu_peak_memory_bytes")
STOP = threading.Event()  # set by SIGTERM, and when the runner is gone


def watch_parent() -> None:
    """End with whoever started us: our standard input closes when they are gone."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        STOP.set()

    threading.Thread(target=wait, daemon=True).start()


def run_one(home: Home, profile: Profile, name: str, *, force: bool, follow: bool) -> str:
    """Run one node unless it is complete; returns ``done`` or ``ran``."""
    store, hashes = Store(home, profile.name), Hashes(home.store)
    lease = Lease(store.folder(name))

    def complete(force: bool) -> Step | None:
        """None for a complete node, else what has to run."""
        step = examine(home, profile, name, hashes, force=force)
        if step.state == "blocked":
            raise Blocked(step.reasons[0])
        if step.state != "done":
            return step
        store.point(name, step.key)
        return None

    try:
        if (step := complete(force)) is None:
            return "done"
        reads = [f"{i.node}/{i.key}" for i in step.inputs.values() if i.node]
        while not lease.acquire(inputs=reads):
            if STOP.wait(0.2):  # another runner is at it: its result will do for us too
                raise SystemExit(143)
        store.sweep(name)
        if (step := complete(force)) is None:
            return "done"
        if step.state == "corrupt" and (bad := store.result(name, step.key)):
            store.quarantine(bad)
        Attempt(home, profile, step, lease, follow).run(hashes)
        return "ran"
    finally:
        hashes.save()
        lease.release()


class Attempt:
    """One attempt at one node, from an empty work folder to a committed result."""

    def __init__(
        self, home: Home, profile: Profile, step: Step, lease: Lease, follow: bool
    ) -> None:
        self.home, self.profile, self.step = home, profile, step
        self.lease, self.follow = lease, follow
        self.store, self.node = Store(home, profile.name), profile.nodes[step.node]
        self.folder = self.store.folder(step.node)
        self.log = self.folder / "log.txt"
        self.nonce = secrets.token_hex(16)
        self.started, self.clock = datetime.now(UTC), time.monotonic()
        self.source = read_notebook(home.notebook(self.node.notebook))
        self.execution = Execution(self.source, self.watch)
        self.shown = -2

    def run(self, hashes: Hashes) -> None:
        """Execute, check, commit; anything else becomes an error with a page of its own."""
        signal.signal(signal.SIGTERM, lambda *_: STOP.set())
        with self.store.work_folder(self.step.node) as work:
            try:
                self.execute(work)
                self.record(work, self.check(work))
                if examine(self.home, self.profile, self.step.node, hashes).key != self.step.key:
                    raise NotebookFailed(
                        "its code, parameters or inputs changed while it ran, so the result "
                        "belongs to neither version; run again"
                    )
                self.store.commit(self.step.node, self.step.key, work)
            except (RunnerError, OSError) as error:
                problem = self.problem(error, work)
                shutil.rmtree(work, ignore_errors=True)  # frees the disk for the explanation
                with suppress(OSError):
                    text = to_text(self.execution.nb, self.home.root)
                    self.store.set_failure(self.step.node, problem, text)
                raise NotebookFailed(str(problem["message"])) from error
            finally:
                for name in ("status.json", "progress.json"):
                    (self.folder / name).unlink(missing_ok=True)

    def execute(self, work: Path) -> None:
        """Run the notebook; raises what its page shall say if it did not run to its end."""
        for name in ("outputs", "figures", "cwd"):
            (work / name).mkdir()
        scratch = self.store.scratch(self.step.node, self.step.key)
        scratch.mkdir(exist_ok=True)
        write_json(work / "context.json", {
            "home": str(self.home.root), "profile": self.profile.name, "node": self.step.node,
            "notebook": self.node.notebook, "nonce": self.nonce, "work": str(work),
            "device": device_class(self.node), "parameters": self.step.parameters,
            "inputs": {name: str(value.path) for name, value in self.step.inputs.items()},
            "scratch": str(scratch), "progress": str(self.folder / "progress.json"),
        })  # fmt: skip
        run, given = self.execution, {n: self.step.parameters[n] for n in self.node.params}
        with self.log.open("w", encoding="utf-8", buffering=1) as log:
            variables = kernel_environment(self.home, self.node, work)
            with run.watched():
                run.execute(given, variables, work / "cwd", self.home.root, log)
        # what libraries wrote past Python may hold codes
        self.log.write_text(clean_text(self.log.read_text("utf-8", "replace")), encoding="utf-8")
        if STOP.is_set():
            raise SystemExit(143)  # stopping is no failure: nothing is recorded
        if run.stopped:
            raise NotebookFailed(run.stopped)
        if run.death:
            raise NotebookFailed(
                f"the kernel died ({run.death}) with a peak memory of {run.peak_bytes / MEGA:.0f} "
                f"MB of {memory_bytes() / MEGA:.0f} MB"
                + ("; as the system ends it when memory runs out" if "SIGKILL" in run.death else "")
            )
        if run.unheard:
            raise NotebookFailed(
                f"the cell ended, but what it showed did not arrive within {LATE} s, as when its "
                f"kernel gets no more memory; peak memory of {run.peak_bytes / MEGA:.0f} MB"
            )
        if run.error:
            told = getattr(run.error, "ename", ""), getattr(run.error, "evalue", str(run.error))
            raise NotebookFailed(clean_text(": ".join(filter(None, told)))) from run.error
        skipped = [n for n, cell in enumerate(run.nb.cells) if cell.cell_type == "code"
                   and cell.source.strip() and not cell.execution_count]  # fmt: skip
        if skipped or not (work / "finish.json").exists():
            where = f"; cell {skipped[0]} ({run.titles[skipped[0]]}) never ran" if skipped else ""
            raise NotebookFailed(f"the notebook ended without `run.finish()`{where}")

    def watch(self) -> None:
        """Wall limit, a vanished runner, and the status that the runner shows."""
        run, limit = self.execution, self.node.resources["minutes"]
        if run.process and "kernel" not in self.lease.content:
            with suppress(OSError):
                self.lease.note(kernel=process_stamp(run.process.pid), sockets=run.sockets)
        if time.monotonic() > self.clock + 60 * limit:
            run.stop(f"over its limit of {limit:g} minutes")
        if STOP.is_set():
            run.stop("stopped from outside")
        if run.cell == self.shown:
            return
        self.shown, count = run.cell, len(run.titles)
        status = {"cell": run.cell, "cells": count, "title": run.title[:200],
                  "started": self.started.timestamp()}  # fmt: skip
        with suppress(OSError):  # not flushed to disk: it matters only while it is fresh
            temporary = self.folder / f".partial-status-{threading.get_ident()}"
            temporary.write_text(json.dumps(status), encoding="utf-8")
            temporary.replace(self.folder / "status.json")
        if self.follow:
            print(f"  cell {run.cell}/{count}: {run.title[:100]}", file=sys.stderr)

    def check(self, work: Path) -> Json:
        """What ``run.finish`` left: its nonce, and every file; it refuses numbers like NaN."""
        finished = mapping(read_json(work / "finish.json"))
        if finished.get("nonce") != self.nonce:
            raise NotebookFailed("finish.json is not from this run; only `run.finish()` writes it")
        missing = [name for name in finished["outputs"] if not (work / name).exists()]
        if missing:
            raise NotebookFailed(
                f"declared but not written: {', '.join(missing[:5])}; "
                "write it to the path that `run.path` gave, or do not ask for one"
            )
        return finished

    def record(self, work: Path, finished: Json) -> None:
        """Write the record, the executed notebook and, last, the manifest."""
        run, step = self.execution, self.step
        shared = {"schema": SCHEMA, "node": step.node, "notebook": self.node.notebook}
        write_json(work / "record.json", shared | {name: finished[name] for name in KEPT} | {
            "title": title_of(self.source), "parameters": step.parameters,
            "defaults": sorted(step.parameters.keys() - self.node.params.keys()),
            "inputs": {name: {"node": i.node, "key": i.key, "hash": i.hash,
                              "path": os.path.relpath(i.path, self.home.root)}
                       for name, i in step.inputs.items()},
            "cells": [{"index": n, "title": run.titles[n], "seconds": round(run.seconds[n], 3)}
                      for n, cell in enumerate(run.nb.cells) if cell.cell_type == "code"],
            "started": self.started.isoformat(timespec="seconds"), "git": git_state(),
            "seconds": round(time.monotonic() - self.clock, 3),
            "peak_memory_bytes": max(run.peak_bytes, finished["peak_memory_bytes"]),
        })  # fmt: skip
        write_atomic(work / "executed.ipynb", to_text(run.nb, self.home.root).encode())
        for leftover in ("context.json", "finish.json"):
            (work / leftover).unlink()
        shutil.rmtree(work / "cwd", ignore_errors=True)
        files = {path.relative_to(work).as_posix(): {
            "sha256": sha256_of(path), "bytes": path.stat().st_size
        } for path in sorted(work.rglob("*")) if path.is_file()}  # fmt: skip
        write_json(work / "manifest.json", shared | {
            "profile": self.profile.name, "key": step.key, "components": step.parts,
            "files": files, "made": datetime.now(UTC).isoformat(),
        })  # fmt: skip

    def problem(self, error: RunnerError | OSError, work: Path) -> Json:
        """All that the page and the console say about a failure."""
        last = self.store.current(self.step.node)
        lack = missing_space(error, self.execution, work, last.folder if last else None)
        return {
            "node": self.step.node, "notebook": self.node.notebook, "key": self.step.key,
            "reproduce": f"python run_all.py {self.profile.name} --only {self.step.node}",
            "log": f"data/store/{self.profile.name}/{self.step.node}/log.txt",
            "when": self.started.isoformat(timespec="seconds"),
            **explain(error, self.execution, self.home.root, self.log, lack),
        }  # fmt: skip
