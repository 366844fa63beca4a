"""One worker per node: a lease file, made exclusively, kept fresh by heartbeats.

A lease is dead when its process is gone (same machine) or its heartbeat stopped (any machine).
"""

import contextlib
import json
import os
import signal
import threading
import time
from functools import cache
from pathlib import Path

from lib.pipeline import Blocked

__all__ = ["Lease", "holder_is_alive", "process_stamp", "read_lease"]

BEAT_SECONDS = 2.0
STALE_SECONDS = 45.0


@cache
def machine_id() -> str:
    """This boot of this machine, as seen from this PID namespace; says nothing about its name."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return "local"
    namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{boot.read_text()[:8]}-{namespace}"


def start_ticks(pid: int) -> str:
    """When a process started, which tells it from a later one with the same number; "" if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        with contextlib.suppress(OSError):  # no /proc: existence has to do
            os.kill(pid, 0)
            return "0"
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def process_stamp(pid: int | None = None) -> str:
    """A process that can be recognised later: machine, number and start."""
    number = pid or os.getpid()
    return f"{machine_id()}_{number}_{start_ticks(number)}"


def holder_is_alive(stamp: str) -> bool | None:
    """True or False for a process of this machine; None where it cannot be known from here."""
    machine, _, rest = stamp.partition("_")
    pid, _, ticks = rest.partition("_")
    if machine != machine_id() or not pid.isdigit():
        return None
    return bool(ticks) and start_ticks(int(pid)) == ticks


def read_lease(folder: Path) -> dict[str, object] | None:
    """The living lease of a node, or None."""
    path = folder / "lease.json"
    try:
        lease = json.loads(path.read_text(encoding="utf-8"))
        age = time.time() - path.stat().st_mtime
        alive = holder_is_alive(str(lease["holder"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        try:  # a holder that died, or ran out of disk, between making the file and filling it
            return {} if time.time() - path.stat().st_mtime < STALE_SECONDS / 9 else None
        except FileNotFoundError:
            return None
    return lease if alive or (alive is None and age < STALE_SECONDS) else None


class Lease:
    """Held from ``acquire`` to ``release``; a thread keeps it fresh for other machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "lease.json"
        self.over = threading.Event()
        self.content: dict[str, object] = {"holder": process_stamp(), "taken": time.time_ns()}

    def acquire(self, **details: object) -> bool:
        """Take the lease unless somebody living holds it; a dead holder's kernel is ended first."""
        self.content |= details
        taken = self._take()
        if taken:
            threading.Thread(target=self._beat, daemon=True).start()
        return taken

    def _take(self) -> bool:
        if self._create(self.path):
            return True
        if read_lease(self.folder) is not None:
            return False
        try:
            dead = self.path.read_text(encoding="utf-8")
        except OSError:
            return self._create(self.path)
        # Only one of several waiting workers may replace a dead lease: who makes this file first.
        token = self.folder / "lease.takeover"
        with contextlib.suppress(OSError):
            if time.time() - token.stat().st_mtime > STALE_SECONDS / 9:
                token.unlink()
        if not self._create(token):
            return False
        try:
            if self.path.exists() and self.path.read_text(encoding="utf-8") != dead:
                return False
            end_kernel_of(dead)
            self._create(fresh := self.folder / f"lease.{process_stamp()}")
            fresh.replace(self.path)
            return True
        finally:
            token.unlink(missing_ok=True)

    def _create(self, path: Path) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(self.content))
        except FileExistsError:
            return False
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink()
            raise Blocked(
                f"{path.parent.name}: the store cannot be written ({error.strerror}); "
                "expected a folder with write permission and free space: see `run_all.py doctor`"
            ) from error
        return True

    def note(self, **details: object) -> None:
        """Add to the lease, for example the kernel that must die with its worker."""
        self.content |= details
        temporary = self.folder / f"lease.{process_stamp()}"
        temporary.write_text(json.dumps(self.content), encoding="utf-8")
        temporary.replace(self.path)

    def _beat(self) -> None:
        while not self.over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def held(self) -> bool:
        """Whether it is still ours: a worker that was stopped for long may have lost it."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(found["holder"] == self.content["holder"])

    def release(self) -> None:
        self.over.set()
        if self.held():
            self.path.unlink(missing_ok=True)


def end_kernel_of(lease: str) -> None:
    """Kill the kernel that a dead worker left, so that two kernels never share a scratch folder."""
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        stamp = str(json.loads(lease)["kernel"])
        if holder_is_alive(stamp):
            os.killpg(int(stamp.split("_")[1]), signal.SIGKILL)
