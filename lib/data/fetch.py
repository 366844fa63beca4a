"""Download what a profile names from the Hugging Face hub: pinned, resumed, checked.

A profile may hold, beside its nodes:

    fetch:
      - repo: reczoo/Avazu_x1
        kind: dataset                 # or model
        revision: <commit, 40 digits> # a branch moves; a commit does not
        to: avazu_x1                  # below data/raw
        files: [{path: Avazu_x1.zip, sha256: <64 digits>, bytes: 123}]   # hash and size if known
    manual:
      - {what: ..., where: <address>, to: toss, why: its licence forbids passing it on}

``HF_ENDPOINT`` names another hub, as for the client itself. A download that breaks off leaves a
partial file, and the next attempt continues it. What arrives is compared with the hub's size and
hash and with the profile's, and noted in ``.fetched.json`` beside it, so that a second call only
looks at the disk.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from errno import ENOSPC
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from lib.data.files import read_json, sha256_of, write_json

__all__ = ["Download", "FetchError", "Manual", "WantedFile", "fetch_all", "read_wishes"]

Kind = Literal["dataset", "model"]
COMMIT, SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
NOTE = ".fetched.json"
DEFAULT_HUB = "https://huggingface.co"


class FetchError(Exception):
    """A download that did not arrive whole; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedFile:
    path: str
    sha256: str = ""
    bytes: int | None = None

    def __post_init__(self) -> None:
        _inside(self.path, "path")
        if self.sha256 and not SHA256.fullmatch(self.sha256):
            raise FetchError(f"{self.path}: sha256 is {self.sha256!r}, expected 64 hex digits")


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    repo: str
    kind: Kind
    revision: str
    to: str
    files: tuple[WantedFile, ...]

    def __post_init__(self) -> None:
        _inside(self.to, "to")
        if self.kind not in ("dataset", "model"):
            raise FetchError(f"{self.repo}: kind is {self.kind!r}, expected 'dataset' or 'model'")
        if not self.files:
            raise FetchError(f"{self.repo}: no files; name those that are needed")

    @property
    def pinned(self) -> bool:
        return COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Manual:
    """What a licence lets nobody pass on."""

    what: str
    where: str
    to: str
    why: str = field(default="its licence does not let us download it for you")

    def __post_init__(self) -> None:
        _inside(self.to, "to")


def read_wishes(
    fetch: object, manual: object, *, source: str
) -> tuple[list[Download], list[Manual]]:
    """The ``fetch`` and ``manual`` lists of a profile; a wrong key is named."""
    downloads = []
    for entry in _entries(fetch, {"repo", "kind", "revision", "to", "files"}, f"{source}: fetch"):
        place = f"{source}: fetch: {entry['repo']}"
        files = _entries(entry["files"], {"path"}, place, {"sha256", "bytes"})
        wanted = tuple(WantedFile(**file) for file in files)  # type: ignore[arg-type]
        downloads.append(Download(**(entry | {"files": wanted})))  # type: ignore[arg-type]
    by_hand = _entries(manual, {"what", "where", "to"}, f"{source}: manual", {"why"})
    return downloads, [Manual(**cast(dict[str, str], entry)) for entry in by_hand]


def fetch_all(
    downloads: Sequence[Download],
    by_hand: Sequence[Manual],
    folder: Path,
    *,
    allow_unpinned: bool = False,
    say: Callable[[str], object],
) -> None:
    """Bring everything below ``folder`` that is not there yet; all is checked before any is got."""
    if "LINGREC_CONTEXT" in os.environ:
        raise FetchError("downloading during a notebook's run; fetch first, then run the profile")
    for download in downloads:
        if not download.pinned and not allow_unpinned:
            raise FetchError(
                f"{download.repo}: revision is {download.revision!r}, which may change; expected a "
                "commit of 40 hex digits. Look it up on the hub's page (Files, History), or fetch "
                "once with --allow-unpinned, which says what to write"
            )
    for entry in by_hand:
        if (folder / entry.to).exists():
            say(f"there     {entry.to}")
        else:
            say(f"by hand   {entry.what}: {entry.why}.")
            say(f"          Get it from {entry.where} and put it into {folder / entry.to}")
    for download in downloads:
        target = folder / download.to
        for wanted in download.files:
            if _is_here(target, download, wanted):
                say(f"there     {download.to}/{wanted.path}")
                continue
            commit = _bring(target, download, wanted)
            say(f"fetched   {download.to}/{wanted.path} from {download.repo}")
            if not download.pinned:
                say(f"          to pin it, write `revision: {commit}`")


def _is_here(target: Path, download: Download, wanted: WantedFile) -> bool:
    """Whether the file is on disk as it was fetched, without asking the hub."""
    path, note = target / wanted.path, _notes(target).get(wanted.path)
    if not path.is_file() or note is None or note["revision"] != download.revision:
        return False
    expected = wanted.sha256 or note["sha256"]
    return path.stat().st_size == note["bytes"] and sha256_of(path) == expected


def _bring(target: Path, download: Download, wanted: WantedFile) -> str:
    """Download one file into place and note it; returns the commit it came from."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError

    hub = os.environ.get("HF_ENDPOINT", DEFAULT_HUB).rstrip("/")
    name = f"{download.repo}@{download.revision}: {wanted.path}"
    url = hf_hub_url(
        download.repo,
        wanted.path,
        repo_type=download.kind,
        revision=download.revision,
        endpoint=hub,
    )
    try:
        told = get_hf_file_metadata(url, endpoint=hub)
    except (HTTPError, OSError, ValueError) as error:
        raise FetchError(_reason(name, hub, error)) from error
    if download.pinned and told.commit_hash != download.revision:
        raise FetchError(
            f"{name}: the hub answered with commit {told.commit_hash}; not the pinned one"
        )
    size, etag = told.size, told.etag or ""
    if size is None:
        raise FetchError(
            f"{name}: the hub names no size, so a cut download could not be told; retry"
        )
    if wanted.bytes is not None and wanted.bytes != size:
        raise FetchError(
            f"{name}: {size} bytes on the hub, expected {wanted.bytes}; wrong revision?"
        )
    path = target / wanted.path
    partial = path.with_name(f".{path.name}.{etag[:12]}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        _continue_download(told.location, partial, size, same_host=told.location.startswith(hub))
    except (HTTPError, OSError, ValueError) as error:
        raise FetchError(_reason(name, hub, error)) from error
    _check_content(name, partial, size, etag, wanted)
    partial.replace(path)
    note = {"revision": download.revision, "bytes": size, "sha256": sha256_of(path)}
    write_json(target / NOTE, {**_notes(target), wanted.path: note})
    return told.commit_hash or "unknown"


def _continue_download(url: str, partial: Path, size: int, *, same_host: bool) -> None:
    """Append to the partial file; the client asks for the rest and checks the size."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    have = partial.stat().st_size if partial.exists() else 0
    if have > size:  # cannot be the beginning of this file
        partial.unlink()
        have = 0
    headers = build_hf_headers() if same_host else {}  # no token for a storage server elsewhere
    headers["Accept-Encoding"] = "identity"
    with partial.open("ab" if have else "wb") as file:
        http_get(url, file, resume_size=have, headers=headers, expected_size=size)


def _check_content(name: str, partial: Path, size: int, etag: str, wanted: WantedFile) -> None:
    """Compare with the profile's hash and the hub's (sha256 of large files, git's of small)."""
    pairs = [("the profile's sha256", wanted.sha256, sha256_of(partial))] if wanted.sha256 else []
    if SHA256.fullmatch(etag):
        pairs.append(("the hub's sha256", etag, sha256_of(partial)))
    elif COMMIT.fullmatch(etag):
        blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with partial.open("rb") as file:
            while piece := file.read(1 << 20):
                blob.update(piece)
        pairs.append(("the hub's git hash", etag, blob.hexdigest()))
    for whose, expected, found in pairs:
        if expected != found:
            partial.unlink()
            raise FetchError(
                f"{name}: checksum is {found}, but {whose} is {expected}. The download is thrown "
                "away; fetch again, and if it stays so, the pin in the profile is wrong"
            )


def _reason(name: str, hub: str, error: Exception) -> str:
    """One sentence on what went wrong and what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{name}: access must be granted on the hub's page first; accept its terms there"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{name}: {hub} has no such repository, or it is private; check `repo` and `kind`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name}: the repository has no such revision; check `revision`"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{name}: the repository has no such file at that revision; check `path`"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, OSError) and error.errno == ENOSPC:
        return f"{name}: the disk is full; make room and fetch again to continue it"
    if isinstance(error, errors.HfHubHTTPError):
        return f"{name}: {hub} answered with an error ({first}); try again later"
    if "Consistency check" in first:
        return f"{name}: the download ended early ({first}); fetch again to continue it"
    return (
        f"{name}: {hub} cannot be reached or broke off ({first}). Check the network; "
        "fetch again to continue where it stopped"
    )


def _notes(target: Path) -> dict[str, dict[str, object]]:
    path = target / NOTE
    return cast(dict[str, dict[str, object]], read_json(path)) if path.is_file() else {}


def _entries(
    value: object, needed: set[str], place: str, optional: set[str] | None = None
) -> list[dict[str, object]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise FetchError(f"{place}: expected a list, found {type(value).__name__}")
    for entry in value:
        keys = set(entry) if isinstance(entry, Mapping) else set()
        wrong = sorted((keys - needed - (optional or set())) | (needed - keys))
        if wrong:
            raise FetchError(f"{place}: check {wrong}; expected {sorted(needed)} in each entry")
    return cast(list[dict[str, object]], value)


def _inside(path: str, what: str) -> None:
    parts = PurePosixPath(str(path))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise FetchError(f"{what} is {path!r}; expected a relative path without `..`")
