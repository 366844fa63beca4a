"""Files are whole or absent; a dataset without its manifest, or with a damaged file, never opens."""

import json
from pathlib import Path

import pytest

from lib.data.files import (
    MANIFEST,
    forget_manifest,
    open_manifest,
    read_json,
    sha256_of,
    write_atomic,
    write_json,
    write_manifest,
)


def finished(folder: Path) -> Path:
    write_atomic(folder / "a.bin", b"abc")
    write_atomic(folder / "sub" / "b.bin", lambda file: file.write(b"defg"))
    write_manifest(folder, "things", {"counts": {"rows": 2}, "made": {"seed": 1}})
    return folder


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")

    def half(file: object) -> None:
        file.write(b"ne")  # type: ignore[attr-defined]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "a", half)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_json_is_sorted_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert read_json(tmp_path / "a.json") == {"a": "ü", "b": 1}


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json.*not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_manifest_lists_every_file_with_size_and_hash(tmp_path: Path) -> None:
    manifest = open_manifest(finished(tmp_path), "things", hashes=True)
    assert manifest["counts"] == {"rows": 2}
    assert manifest["files"] == {
        name: {"sha256": sha256_of(tmp_path / name), "bytes": size}
        for name, size in (("a.bin", 3), ("sub/b.bin", 4))
    }


def test_two_writes_of_the_same_content_give_the_same_manifest(tmp_path: Path) -> None:
    for name in ("one", "two"):
        finished(tmp_path / name)
    assert (tmp_path / "one" / MANIFEST).read_bytes() == (tmp_path / "two" / MANIFEST).read_bytes()


def test_a_folder_without_manifest_does_not_open(tmp_path: Path) -> None:
    forget_manifest(finished(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json.*run the node"):
        open_manifest(tmp_path, "things")
    with pytest.raises(FileNotFoundError, match="is not there"):
        open_manifest(tmp_path / "nowhere", "things")


def test_wrong_kind_and_schema_are_named(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(ValueError, match="kind is 'things', expected 'others'"):
        open_manifest(tmp_path, "others")
    manifest = json.loads((tmp_path / MANIFEST).read_text()) | {"schema": 0}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="schema is 0"):
        open_manifest(tmp_path, "things")
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(ValueError, match="not a dataset manifest"):
        open_manifest(tmp_path, "things")


@pytest.mark.parametrize("damage", ["missing", "bytes instead of"])
def test_a_missing_or_shortened_file_is_found_without_hashing(tmp_path: Path, damage: str) -> None:
    finished(tmp_path)
    if damage == "missing":
        (tmp_path / "a.bin").unlink()
    else:
        (tmp_path / "a.bin").write_bytes(b"ab")
    with pytest.raises(ValueError, match=rf"a\.bin \(.*{damage}"):
        open_manifest(tmp_path, "things")


def test_a_flipped_byte_is_found_by_hashing(tmp_path: Path) -> None:
    (finished(tmp_path) / "a.bin").write_bytes(b"abd")
    open_manifest(tmp_path, "things")
    with pytest.raises(ValueError, match="another sha256"):
        open_manifest(tmp_path, "things", hashes=True)


def test_a_manifest_keeps_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['kind'\]"):
        write_manifest(tmp_path, "things", {"kind": "other"})
