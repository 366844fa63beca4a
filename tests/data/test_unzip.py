"""Zips of click files: split files only, flat, whole, or refused."""

import zipfile

import pytest

from lib.data.unzip import unpack_sources


def pack(path, **members):
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/"), text)


def test_only_split_files_are_taken_and_land_flat(tmp_path):
    members = {"Avazu_x1__train.csv": "a,b\n", "Avazu_x1__test.csv": "c\n", "README.md": "no"}
    pack(tmp_path / "raw" / "z.zip", **members, **{"..__..__valid.csv": "v\n"})
    found = unpack_sources(tmp_path / "raw", tmp_path / "out")
    assert sorted(path.name for path in found.iterdir()) == ["test.csv", "train.csv", "valid.csv"]
    assert (found / "train.csv").read_text() == "a,b\n"
    assert not (tmp_path / "valid.csv").exists()


def test_files_beside_a_zip_are_used_as_they_are(tmp_path):
    pack(tmp_path / "raw" / "z.zip", **{"train.csv": "zipped"})
    (tmp_path / "raw" / "train.csv").write_text("plain")
    assert unpack_sources(tmp_path / "raw", tmp_path / "out") == tmp_path / "raw"


def test_a_cut_a_spoiled_and_a_foreign_zip_are_refused(tmp_path):
    path = tmp_path / "raw" / "z.zip"
    pack(path, **{"train.csv": "x,y\n" * 5000})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole zip"):
        unpack_sources(path.parent, tmp_path / "a")
    spoiled = bytearray(whole)
    spoiled[60] ^= 0xFF
    path.write_bytes(bytes(spoiled))
    with pytest.raises(ValueError, match="not a whole zip"):
        unpack_sources(path.parent, tmp_path / "b")
    pack(path, **{"other.csv": "x"})
    with pytest.raises(ValueError, match="expected one each of train, valid, test"):
        unpack_sources(path.parent, tmp_path / "c")
    pack(path.parent / "y.zip", **{"train.csv": "x"})
    with pytest.raises(ValueError, match=r"y\.zip, z\.zip and no train file"):
        unpack_sources(path.parent, tmp_path / "d")
