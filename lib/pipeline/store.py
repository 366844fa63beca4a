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
from pathlib import Path
from typing import cast

from lib.data.files import damaged_files, read_json, write_atomic, write_json
from lib.pipeline.keys import Hashes, digest
from lib.pipeline.lease import holder_is_alive, process_stamp
from lib.pipeline.profile import Home

__all__ = ["Result", "Store", "folder_bytes"]

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """A complete result on disk."""

    node: str
    key: str
    folder: Path
    manifest: Json

    @property
    def parts(self) -> Json:
        return cast(Json, self.manifest["components"])

    def record(self) -> Json:
        return cast(Json, read_json(self.folder / "record.json"))

    def output(self, sub: str) -> Path:
        return self.folder / "outputs" / sub if sub else self.folder / "outputs"

    def output_hash(self, sub: str) -> str | None:
        """The content hash of one output or of all below a folder; None where there is none."""
        prefix = f"outputs/{sub}".rstrip("/")
        files = cast("dict[str, dict[str, str]]", self.manifest["files"])
        if prefix in files:
            return files[prefix]["sha256"]
        below = {name: entry["sha256"] for name, entry in files.items()
                 if name.startswith(f"{prefix}/")}  # fmt: skip
        return digest(below) if below else None


class Store:
    """The results of one profile."""

    def __init__(self, home: Home, profile: str) -> None:
        self.home = home
        self.profile = profile
        self.root = home.store / profile

    def folder(self, node: str) -> Path:
        return self.root / node

    def current(self, node: str) -> Result | None:
        """The result that ``current`` points to."""
        try:
            key = (self.folder(node) / "current").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return self.result(node, key) if key else None

    def result(self, node: str, key: str) -> Result | None:
        """A result by key; None where there is no readable manifest."""
        folder = self.folder(node) / key[:12]
        try:
            manifest = cast(Json, json.loads((folder / "manifest.json").read_text("utf-8")))
        except (OSError, ValueError):
            return None
        whole = isinstance(manifest, dict) and {"files", "components", "key"} <= manifest.keys()
        return Result(node, key[:12], folder, manifest) if whole else None

    def results(self, node: str) -> list[Result]:
        """All complete results of a node, newest first."""
        places = self.folder(node).glob("[0-9a-f]" * 12 + "/manifest.json")
        whole = [result for place in places if (result := self.result(node, place.parent.name))]
        return sorted(whole, key=lambda result: str(result.manifest.get("made")), reverse=True)

    def damage(self, result: Result, hashes: Hashes) -> list[str]:
        """The files of a result that are not what its manifest says."""
        damaged = damaged_files(result.folder, result.manifest, hashes=False)
        files = cast("dict[str, dict[str, str]]", result.manifest["files"])
        return damaged or [
            f"{name} (changed after it was written)"
            for name, entry in files.items()
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

    def commit(self, node: str, key: str, work: Path) -> None:
        """Rename a finished work folder into place and point to it."""
        target = self.folder(node) / key[:12]
        for path in work.rglob("*"):
            flush(path)
        flush(work)
        if target.exists():  # forced: the old one is set aside until the new one is in place
            target.replace(target.with_name(f".old-{key[:12]}"))
        work.replace(target)
        flush(target.parent)
        self.point(node, key)
        shutil.rmtree(target.with_name(f".old-{key[:12]}"), ignore_errors=True)

    def sweep(self, node: str) -> None:
        """Remove what dead workers left; give back a result that a crash left set aside."""
        for old in self.folder(node).glob(".old-*"):
            target = old.with_name(old.name.removeprefix(".old-"))
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.replace(target)
        for work in self.folder(node).glob(".tmp-*"):
            if not holder_is_alive(work.name.removeprefix(".tmp-").partition(".")[0]):
                shutil.rmtree(work, ignore_errors=True)
        for torn in [*self.folder(node).glob("lease.*_*"), *self.folder(node).glob(".partial-*")]:
            torn.unlink(missing_ok=True)

    @contextmanager
    def work_folder(self, node: str) -> Iterator[Path]:
        """A temporary folder beside the results, gone afterwards unless it was committed."""
        prefix = f".tmp-{process_stamp()}."
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder(node)))
        work.chmod(0o755)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def scratch(self, node: str, key: str) -> Path:
        """Checkpoints of one key: they survive a kill and go when the key completes."""
        return self.folder(node) / f"scratch-{key[:12]}"

    def runs(self) -> list[Json]:
        """Finished runner invocations, oldest first."""
        try:
            lines = (self.root / "runs.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                found.append(cast(Json, json.loads(line)))
            except ValueError:
                continue  # torn by a kill
        return found

    def add_run(self, run: Json) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(run, sort_keys=True) + "\n")

    def failure(self, node: str) -> Json | None:
        """What the last failed attempt left, if no good result came after it."""
        try:
            return cast(Json, json.loads((self.folder(node) / "failed/error.json").read_text()))
        except (OSError, ValueError):
            return None

    def set_failure(self, node: str, error: Json, executed: str | None) -> None:
        """Leave a page's worth of explanation beside the last good result, which stays."""
        self.clear_failure(node)
        if executed is not None:
            write_atomic(self.folder(node) / "failed/executed.ipynb", executed.encode())
        write_json(self.folder(node) / "failed/error.json", error)

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
