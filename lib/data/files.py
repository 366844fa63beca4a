"""Files that are either whole or absent, and the manifest that says a dataset folder is complete.

A file is written under a temporary name in its own folder, flushed to disk and renamed into place.
A dataset is complete once its ``manifest.json``, written last, names each file with size and hash.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

__all__ = [
    "MANIFEST",
    "damaged_files",
    "forget_manifest",
    "open_manifest",
    "read_json",
    "sha256_of",
    "write_atomic",
    "write_json",
    "write_manifest",
]

MANIFEST = "manifest.json"
SCHEMA = 1
TEMPORARY = ".partial-"  # prefix of files that are still being written; never part of a manifest


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write bytes, or let ``content`` write into an open binary file, and rename into place.

    >>> folder = Path(tempfile.mkdtemp())
    >>> write_atomic(folder / "a.txt", b"whole")
    >>> (folder / "a.txt").read_bytes()
    b'whole'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=f"-{path.name}")
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)  # mkstemp makes files only their owner can read; give the usual mode
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write sorted, indented JSON; NaN and infinity are refused, because JSON has neither."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomic(path, text.encode() + b"\n")


def read_json(path: Path) -> object:
    """Read one JSON file; a broken one is an error that names the file."""
    try:
        return cast(object, json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        message = (
            f"{path}: not valid JSON ({error}). Expected one whole JSON document; write it again"
        )
        raise ValueError(message) from error


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def forget_manifest(folder: Path) -> None:
    """Declare a folder incomplete before its files are replaced."""
    (folder / MANIFEST).unlink(missing_ok=True)


def write_manifest(folder: Path, kind: str, extra: Mapping[str, object]) -> dict[str, object]:
    """Describe every file of ``folder``, as the last act of writing a dataset.

    ``extra`` holds ``counts`` and ``made`` (how it was made: parameters, never time or host) and
    whatever else the kind of dataset needs to be opened.
    """
    reserved = {"schema", "kind", "files"} & extra.keys()
    if reserved:
        raise ValueError(
            f"extra has {sorted(reserved)}, which the manifest sets itself; rename them"
        )
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(TEMPORARY)
    }
    manifest: dict[str, object] = {"counts": {}, "made": {}, **extra}
    manifest |= {"schema": SCHEMA, "kind": kind, "files": files}
    write_json(folder / MANIFEST, manifest)
    return manifest


def open_manifest(folder: Path, kind: str, *, hashes: bool = False) -> dict[str, object]:
    """Read and check the manifest of a dataset folder; sizes always, hashes on request.

    ``hashes=False`` keeps opening a dataset of any size instant.
    """
    path = folder / MANIFEST
    if not path.is_file():
        state = "is not there" if not folder.exists() else f"has no {MANIFEST}"
        raise FileNotFoundError(
            f"{folder} {state}: expected a finished dataset of kind {kind!r}. "
            "It was never made, or its writing was interrupted; run the node that makes it again"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{path}: not a dataset manifest; expected an object with `files`")
    if manifest.get("kind") != kind:
        raise ValueError(
            f"{path}: kind is {manifest.get('kind')!r}, expected {kind!r}; wrong input?"
        )
    if manifest.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: schema is {manifest.get('schema')!r}, this code reads {SCHEMA}; make it again"
        )
    damaged = damaged_files(folder, manifest, hashes=hashes)
    if damaged:
        raise ValueError(
            f"{folder}: {len(damaged)} file(s) are missing or damaged: {', '.join(damaged[:5])}. "
            "Expected what the manifest lists; run the node that makes this dataset again"
        )
    return manifest


def damaged_files(folder: Path, manifest: Mapping[str, object], *, hashes: bool) -> list[str]:
    """The files of a manifest that are absent, of another size, or (on request) of another hash."""
    damaged = []
    for name, entry in cast(Mapping[str, Mapping[str, object]], manifest["files"]).items():
        path = folder / name
        if not path.is_file():
            damaged.append(f"{name} (missing)")
        elif path.stat().st_size != entry["bytes"]:
            damaged.append(f"{name} ({path.stat().st_size} bytes instead of {entry['bytes']})")
        elif hashes and sha256_of(path) != entry["sha256"]:
            damaged.append(f"{name} (another sha256)")
    return damaged
