"""Click files that arrive in one zip, as reczoo publishes Avazu: only its split files are taken."""

import shutil
import zipfile
import zlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lib.data.files import write_atomic

__all__ = ["unpack_sources"]

STEMS = ("train", "valid", "test")


def unpack_sources(folder: Path, scratch: Path) -> Path:
    """The folder of the split files: ``folder`` itself, or ``scratch`` with what its zip had.

    Members keep their base name only, so nothing can be written elsewhere; checksums are verified.
    """
    zips = sorted(folder.glob("*.zip"))
    if not zips or any(path.name.split(".")[0] in STEMS for path in folder.iterdir()):
        return folder
    if len(zips) > 1:
        names = ", ".join(path.name for path in zips)
        raise ValueError(f"{folder.name}: {names} and no train file; keep one zip or unpack them")
    try:
        with zipfile.ZipFile(zips[0]) as archive:
            taken = [m for m in archive.infolist() if _base(m).split(".")[0] in STEMS]
            bases = [_base(member) for member in taken]
            if not taken or len(set(bases)) < len(bases):
                raise ValueError(
                    f"{zips[0].name} holds {sorted(archive.namelist())[:8]}; expected one each of "
                    f"{', '.join(STEMS)} at most. Unpack what you need beside it"
                )
            for member in taken:
                write_atomic(scratch / _base(member), partial(_copy, archive, member))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{zips[0].name}: not a whole zip ({error}); fetch it again") from error
    return scratch


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: BinaryIO) -> None:
    with archive.open(member) as packed:
        shutil.copyfileobj(packed, file, 1 << 20)


def _base(member: zipfile.ZipInfo) -> str:
    return "" if member.is_dir() else PurePosixPath(member.filename.replace("\\", "/")).name
