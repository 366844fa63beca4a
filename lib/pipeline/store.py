"""Where results live: complete or absent, never in between.

A result is a folder ``data/store/<profile>/<node>/<key12>/`` that was renamed into place after its
``manifest.json``; ``current`` names the newest good one. Older ones stay until ``gc``.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lib.data.files import damaged_files, write_atomic, write_json
from lib.pipeline.keys import Hashes, digest
from lib.pipeline.profile import Home

__all__ = ["Json", "Result", "Store", "folder_bytes", "mapping", "read_mapping"]

Json = dict[str, Any]
WHOLE = {"files", "components", "key"}  # what a manifest must have to be believed


def mapping(value: object) -> Json:
    """The value if it is a mapping; what should be one and is not counts as empty."""
    return value if isinstance(value, dict) else {}


def read_mapping(path: Path) -> Json:
    """A JSON object from a file; absent, torn or something else counts as empty."""
    try:
        return mapping(json.loads(path.read_text("utf-8", "replace")))
    except (OSError, ValueError, RecursionError):
        return {}


@dataclass(frozen=True)
class Result:
    """A complete result on disk: what the runner sealed, and what the notebook recorded."""

    node: str
    key: str
    folder: Path
    manifest: Json

    @cached_property
    def record(self) -> Json:
        return read_mapping(self.folder / "record.json")

    @property
    def parts(self) -> Json:
        """What the key was made from: name -> hash or value."""
        return mapping(self.manifest["components"])

    def file(self, name: str) -> Path:
        """A file of this result by its name in the manifest; no other name leads anywhere."""
        if name not in self.manifest["files"]:
            raise FileNotFoundError(f"{self.node} has no file {name!r}")
        return self.folder / name

    def output(self, sub: str) -> Path:
        return self.folder / "outputs" / sub if sub else self.folder / "outputs"

    def output_hash(self, sub: str) -> str | None:
        """The content hash of one output or of all below a folder; None where there is none."""
        prefix, files = f"outputs/{sub}".rstrip("/"), self.manifest["files"]
        if prefix in files:
            return str(files[prefix]["sha256"])
        below = {n: entry["sha256"] for n, entry in files.items() if n.startswith(f"{prefix}/")}
        return digest(below) if below else None


class Store:
    """The results of one profile."""

    def __init__(self, home: Home, profile: str) -> None:
        self.home, self.profile, self.root = home, profile, home.store / profile

    def folder(self, node: str) -> Path:
        return self.root / node

    def current(self, node: str) -> Result | None:
        """The result that ``current`` points to."""
        try:
            key = (self.folder(node) / "current").read_text("utf-8", "replace").strip()
        except OSError:
            return None
        return self.result(node, key) if key.isalnum() else None

    def result(self, node: str, key: str) -> Result | None:
        """A result by key; None where there is no readable manifest."""
        folder = self.folder(node) / key[:12]
        manifest = read_mapping(folder / "manifest.json")
        return Result(node, key[:12], folder, manifest) if manifest.keys() >= WHOLE else None

    def results(self, node: str) -> list[Result]:
        """All complete results of a node, newest first."""
        places = self.folder(node).glob("[0-9a-f]" * 12 + "/manifest.json")
        whole = [result for place in places if (result := self.result(node, place.parent.name))]
        return sorted(whole, key=lambda result: str(result.manifest.get("made")), reverse=True)

    def damage(self, result: Result, hashes: Hashes) -> list[str]:
        """The files of a result that are not what its manifest says."""
        return damaged_files(result.folder, result.manifest, hashes=False) or [
            f"{name} (changed after it was written)"
            for name, entry in result.manifest["files"].items()
            if hashes.of(result.folder / name) != entry["sha256"]
        ]

    def point(self, node: str, key: str) -> None:
        """Make a complete result the current one."""
        now = self.current(node)
        if now is None or now.key != key[:12]:
            write_atomic(self.folder(node) / "current", f"{key[:12]}\n".encode())

    def quarantine(self, result: Result) -> None:
        """Move a corrupt result aside, so that nothing reads it and a person can look at it."""
        result.folder.replace(result.folder.with_name(f"corrupt-{result.key}-{time.time_ns()}"))

    @contextmanager
    def work_folder(self, node: str) -> Iterator[Path]:
        """A temporary folder beside the results, gone afterwards unless it was committed."""
        work = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.folder(node)))
        work.chmod(0o755)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def commit(self, node: str, key: str, work: Path) -> None:
        """Rename a finished work folder into place and point to it."""
        target = self.folder(node) / key[:12]
        for path in [*work.rglob("*"), work]:
            flush(path)
        old = target.with_name(f".old-{key[:12]}")
        if target.exists():  # forced: the old one is set aside until the new one is in place
            target.replace(old)
        work.replace(target)
        flush(target.parent)
        self.point(node, key)
        self.clear_failure(node)
        for rest in (old, self.scratch(node, key)):
            shutil.rmtree(rest, ignore_errors=True)

    def sweep(self, node: str) -> None:
        """For who holds the lease: remove what dead workers left, give back what they set aside."""
        for old in self.folder(node).glob(".old-*"):
            target = old.with_name(old.name.removeprefix(".old-"))
            if not target.exists():
                old.replace(target)
        for rest in (".old-*", ".tmp-*", ".partial-*"):
            for path in self.folder(node).glob(rest):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def scratch(self, node: str, key: str) -> Path:
        """Checkpoints of one key: they survive a kill and go when the key completes."""
        return self.folder(node) / f"scratch-{key[:12]}"

    def runs(self) -> list[Json]:
        """Finished runner invocations, oldest first; a line torn by a kill is left out."""
        found, path = [], self.root / "runs.jsonl"
        for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else []:
            try:
                found.append(mapping(json.loads(line)))
            except (ValueError, RecursionError):
                continue
        return [run for run in found if isinstance(run.get("nodes"), dict)]

    def add_run(self, run: Json) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(run, sort_keys=True) + "\n")

    def failure(self, node: str) -> Json | None:
        """What the last failed attempt left, if no good result came after it."""
        path = self.folder(node) / "failed" / "error.json"
        return read_mapping(path) if path.is_file() else None

    def set_failure(self, node: str, error: Json, executed: str | None) -> None:
        """Leave a page's worth of explanation beside the last good result, which stays."""
        folder = self.folder(node) / "failed"
        self.clear_failure(node)
        if executed is not None:
            write_atomic(folder / "executed.ipynb", executed.encode())
        write_json(folder / "error.json", error)

    def clear_failure(self, node: str) -> None:
        shutil.rmtree(self.folder(node) / "failed", ignore_errors=True)


def flush(path: Path) -> None:
    """Ask the disk to have a file or folder before anything points to it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
