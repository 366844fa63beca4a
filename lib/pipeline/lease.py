"""One worker per node: a file that its holder keeps locked.

The operating system gives the lock back when the holder dies, whatever ended it. The file says
which kernel must go with its worker, and which results are being read.
"""

import fcntl
import json
import os
import shutil
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

from lib.pipeline import Blocked
from lib.pipeline.store import read_mapping

__all__ = ["Lease", "process_stamp", "read_lease"]

NAME, SOCKETS = "lease.json", "nb_"


def process_stamp(pid: int) -> list[float]:
    """A process that can be told from a later one with the same number: number and start."""
    import psutil

    return [pid, psutil.Process(pid).create_time()]


def read_lease(folder: Path) -> dict[str, object] | None:
    """What the holder of a node's lease wrote; None where nobody living holds it."""
    with suppress(OSError), (folder / NAME).open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read_mapping(folder / NAME)
    return None


class Lease:
    """Held from ``acquire`` to ``release`` or to the end of the process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.handle = -1
        self.content: dict[str, object] = {}
        self.held = ExitStack()

    def acquire(self, **details: object) -> bool:
        """Take the lease unless somebody living holds it; a dead holder's kernel is ended first."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                self.handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
                stack.callback(os.close, self.handle)
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(self.handle), self.path.stat()):
                    return False  # its last holder removed the file while we opened it
                end_leftovers(read_mapping(self.path))
                stack.callback(self.path.unlink, missing_ok=True)  # before it is unlocked
                os.ftruncate(self.handle, 0)
                self.note(worker=process_stamp(os.getpid()), **details)
                self.held = stack.pop_all()
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError as error:
            raise Blocked(
                f"{self.path.parent.name}: the store cannot be written or locked "
                f"({error.strerror}); expected a folder with write permission, free space and a "
                "file system that keeps locks: see `run_all.py doctor`"
            ) from error
        return True

    def note(self, **details: object) -> None:
        """Add to the lease, for example the kernel that must die with its worker."""
        self.content |= details
        os.pwrite(self.handle, json.dumps(self.content).encode(), 0)  # it only grows

    def release(self) -> None:
        self.held.close()


def end_leftovers(lease: dict[str, object]) -> None:
    """Kill the kernel that a dead worker left, so that two never share a scratch folder."""
    import psutil

    with suppress(psutil.Error, OSError, ValueError, TypeError, KeyError):
        pid, start = map(float, lease["kernel"])  # type: ignore[call-overload]
        if abs(psutil.Process(int(pid)).create_time() - start) < 2:
            os.killpg(int(pid), signal.SIGKILL)
    sockets = Path(str(lease.get("sockets", "")))
    if sockets.name.startswith(SOCKETS):
        shutil.rmtree(sockets, ignore_errors=True)
