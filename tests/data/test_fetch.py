"""The real hub client against a small hub on loopback: whole, resumed, cut, wrong, absent, offline."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from lib.data.fetch import Download, FetchError, Manual, WantedFile, fetch_all, read_wishes

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
CONTENT = bytes(range(256)) * 4000  # about a megabyte
SMALL = b'{"hidden_size": 64}'


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that downloads use: resolve with ETag, Range and commit."""

    files: ClassVar[dict[str, bytes]] = {}
    requests: ClassVar[list[tuple[str, str, str]]] = []
    fault: ClassVar[str] = ""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        asked = self.headers.get("Range", "")
        self.requests.append((self.command, self.path, asked))
        content = self.files.get(self.path)
        if content is None:
            code = {"repo": "RepoNotFound", "revision": "RevisionNotFound"}.get(self.fault)
            self.send_response(404)
            self.send_header("X-Error-Code", code or "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.fault == "server" and body:
            self.send_error(500)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if self.fault == "no range":
            start = 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        large = len(content) > 1000
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content)
        etag = hashlib.sha256(content).hexdigest() if large else blob.hexdigest()
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        rest = content[start:]
        if self.fault == "flipped":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        if self.fault == "cut" or (self.fault == "cut once" and not start):
            rest = rest[: max(0, len(content) // 2 - start)]
        self.wfile.write(rest)

    def log_message(self, format: str, *values: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.files = {
        f"/datasets/me/set/resolve/{COMMIT}/big.bin": CONTENT,
        "/datasets/me/set/resolve/main/big.bin": CONTENT,
        f"/me/model/resolve/{COMMIT}/config.json": SMALL,
    }
    Hub.requests, Hub.fault = [], ""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("LINGREC_CONTEXT", raising=False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    # The client keeps what it got in steps of this size, 10 MB by default.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


def wish(revision: str = COMMIT, **file: object) -> Download:
    wanted = WantedFile(path="big.bin", **file)  # type: ignore[arg-type]
    return Download(repo="me/set", kind="dataset", revision=revision, to="set", files=(wanted,))


def fetch(folder: Path, *downloads: Download, allow_unpinned: bool = False) -> list[str]:
    said: list[str] = []
    fetch_all(downloads, [], folder, allow_unpinned=allow_unpinned, say=said.append)
    return said


def gets() -> list[str]:
    return [asked for command, _, asked in Hub.requests if command == "GET"]


def test_a_file_arrives_whole_and_is_noted(hub: type[Hub], tmp_path: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    said = fetch(tmp_path, wish(sha256=sha256, bytes=len(CONTENT)))
    assert said == ["fetched   set/big.bin from me/set"]
    assert (tmp_path / "set" / "big.bin").read_bytes() == CONTENT
    assert json.loads((tmp_path / "set" / ".fetched.json").read_text()) == {
        "big.bin": {"revision": COMMIT, "bytes": len(CONTENT), "sha256": sha256}
    }
    assert not list((tmp_path / "set").glob("*.partial"))


def test_a_second_call_asks_nobody(hub: type[Hub], tmp_path: Path) -> None:
    fetch(tmp_path, wish())
    Hub.requests.clear()
    assert fetch(tmp_path, wish()) == ["there     set/big.bin"]
    assert not Hub.requests


def test_a_damaged_file_is_fetched_again(hub: type[Hub], tmp_path: Path) -> None:
    fetch(tmp_path, wish())
    (tmp_path / "set" / "big.bin").write_bytes(CONTENT[:-1] + b"?")
    assert fetch(tmp_path, wish())[0].startswith("fetched")
    assert (tmp_path / "set" / "big.bin").read_bytes() == CONTENT


def test_a_model_file_is_checked_by_its_git_hash(hub: type[Hub], tmp_path: Path) -> None:
    config = Download(
        repo="me/model",
        kind="model",
        revision=COMMIT,
        to="models/small",
        files=(WantedFile(path="config.json"),),
    )
    fetch(tmp_path, config)
    assert (tmp_path / "models" / "small" / "config.json").read_bytes() == SMALL
    (tmp_path / "models" / "small" / "config.json").unlink()
    Hub.fault = "flipped"
    with pytest.raises(FetchError, match="the hub's git hash"):
        fetch(tmp_path, config)


def test_a_broken_connection_is_continued_at_once(hub: type[Hub], tmp_path: Path) -> None:
    Hub.fault = "cut once"
    fetch(tmp_path, wish())
    assert (tmp_path / "set" / "big.bin").read_bytes() == CONTENT
    assert gets() == ["", f"bytes={len(CONTENT) // 2}-"]


def test_a_killed_download_is_continued_by_the_next_call(hub: type[Hub], tmp_path: Path) -> None:
    Hub.fault = "cut"
    with pytest.raises(FetchError, match="fetch again to continue"):
        fetch(tmp_path, wish())
    assert not (tmp_path / "set" / "big.bin").exists()
    (partial,) = (tmp_path / "set").glob(".big.bin.*.partial")
    assert partial.read_bytes() == CONTENT[: len(CONTENT) // 2]
    Hub.fault = ""
    Hub.requests.clear()
    fetch(tmp_path, wish())
    assert gets() == [f"bytes={len(CONTENT) // 2}-"]
    assert (tmp_path / "set" / "big.bin").read_bytes() == CONTENT


def test_a_hub_that_ignores_ranges_sends_the_file_anew(hub: type[Hub], tmp_path: Path) -> None:
    Hub.fault = "cut"
    with pytest.raises(FetchError):
        fetch(tmp_path, wish())
    Hub.fault = "no range"
    fetch(tmp_path, wish())
    assert (tmp_path / "set" / "big.bin").read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_file_is_thrown_away(hub: type[Hub], tmp_path: Path) -> None:
    etag = hashlib.sha256(CONTENT).hexdigest()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / f".big.bin.{etag[:12]}.partial").write_bytes(CONTENT * 2)
    fetch(tmp_path, wish())
    assert (tmp_path / "set" / "big.bin").read_bytes() == CONTENT


def test_a_wrong_beginning_is_found_by_the_checksum(hub: type[Hub], tmp_path: Path) -> None:
    etag = hashlib.sha256(CONTENT).hexdigest()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / f".big.bin.{etag[:12]}.partial").write_bytes(b"not the beginning")
    with pytest.raises(FetchError, match=r"checksum is .* the hub's sha256"):
        fetch(tmp_path, wish())
    fetch(tmp_path, wish())  # the bad part is gone
    assert (tmp_path / "set" / "big.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(hub: type[Hub], tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"big\.bin: checksum is .* the profile's sha256 is 0000"):
        fetch(tmp_path, wish(sha256="0" * 64))
    Hub.fault = "flipped"
    with pytest.raises(FetchError, match="the hub's sha256"):
        fetch(tmp_path, wish())
    assert not list((tmp_path / "set").iterdir())


def test_a_wrong_size_is_an_error_before_the_download(hub: type[Hub], tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"{len(CONTENT)} bytes on the hub, expected 5"):
        fetch(tmp_path, wish(bytes=5))
    assert not gets()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("", "no such file at that revision; check `path`"),
        ("revision", "no such revision; check `revision`"),
        ("repo", "no such repository"),
    ],
)
def test_what_is_not_found_is_named(
    hub: type[Hub], tmp_path: Path, fault: str, message: str
) -> None:
    Hub.files, Hub.fault = {}, fault
    with pytest.raises(FetchError, match=message):
        fetch(tmp_path, wish())


def test_a_server_in_trouble_is_named(hub: type[Hub], tmp_path: Path) -> None:
    Hub.fault = "server"
    with pytest.raises(FetchError, match="answered with an error"):
        fetch(tmp_path, wish())


def test_another_commit_than_the_pinned_one_is_refused(hub: type[Hub], tmp_path: Path) -> None:
    Hub.files[f"/datasets/me/set/resolve/{OTHER}/big.bin"] = CONTENT
    with pytest.raises(FetchError, match=f"answered with commit {COMMIT}"):
        fetch(tmp_path, wish(OTHER))


def test_a_branch_is_refused_until_asked_for_and_then_says_its_commit(
    hub: type[Hub], tmp_path: Path
) -> None:
    with pytest.raises(FetchError, match="revision is 'main', which may change"):
        fetch(tmp_path, wish("main"))
    assert not Hub.requests
    said = fetch(tmp_path, wish("main"), allow_unpinned=True)
    assert said[-1] == f"          to pin it, write `revision: {COMMIT}`"


def test_without_network_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINGREC_CONTEXT", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # a port nobody listens on
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9 cannot be reached.*Check the network"):
        fetch(tmp_path, wish())


def test_a_notebook_never_downloads(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINGREC_CONTEXT", "somewhere")
    with pytest.raises(FetchError, match="during a notebook's run"):
        fetch(tmp_path, wish())
    assert not Hub.requests


def test_what_must_be_got_by_hand_is_explained_until_it_is_there(tmp_path: Path) -> None:
    entry = Manual(what="The Toss log", where="https://example.org/toss", to="toss")
    said: list[str] = []
    fetch_all([], [entry], tmp_path, say=said.append)
    assert said[0] == "by hand   The Toss log: its licence does not let us download it for you."
    assert said[1].endswith(f"from https://example.org/toss and put it into {tmp_path / 'toss'}")
    (tmp_path / "toss").mkdir()
    said.clear()
    fetch_all([], [entry], tmp_path, say=said.append)
    assert said == ["there     toss"]


def test_a_profile_becomes_wishes() -> None:
    entry = {
        "repo": "a/b",
        "kind": "model",
        "revision": COMMIT,
        "to": "m",
        "files": [{"path": "x"}],
    }
    downloads, by_hand = read_wishes(
        [entry], [{"what": "T", "where": "W", "to": "t"}], source="params/p.yaml"
    )
    assert downloads[0].files == (WantedFile(path="x"),)
    assert by_hand[0].to == "t"
    assert read_wishes(None, None, source="params/p.yaml") == ([], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revison": "x"}, r"p\.yaml: fetch: check \['revison'\]"),
        ({"files": [{"name": "x"}]}, r"a/b: check \['name', 'path'\]"),
        ({"files": []}, "no files"),
        ({"files": {"path": "x"}}, "expected a list"),
        ({"to": "../out"}, "to is '../out'"),
        ({"files": [{"path": "/etc/x"}]}, "path is '/etc/x'"),
        ({"files": [{"path": "x", "sha256": "abc"}]}, "expected 64 hex digits"),
        ({"kind": "space"}, "kind is 'space'"),
    ],
)
def test_wrong_wishes_are_named(change: dict[str, object], message: str) -> None:
    entry = {
        "repo": "a/b",
        "kind": "model",
        "revision": COMMIT,
        "to": "m",
        "files": [{"path": "x"}],
    }
    with pytest.raises(FetchError, match=message):
        read_wishes([entry | change], None, source="params/p.yaml")
