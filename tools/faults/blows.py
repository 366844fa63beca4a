"""Faults that strike while a notebook runs: kills, a full disk, no more memory."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.faults.trial import Expect, Fault, Pair, Stage, Trial
from tools.faults.workspace import Process, gone

__all__ = ["DISK", "KILLS", "MEMORY"]

AGAIN = r"again: python run_all\.py smoke --only \w+"
FAILED = {"the node": r"✗ \w+: failed"}


def moment(pair: Pair) -> tuple[int, float]:
    """A random cell and a moment in it; a later attempt strikes in the cell of the imports."""
    cells = [pair.case.cells[0]] if pair.attempt else list(pair.case.cells)
    cell, seconds = pair.dice.choice(cells)
    return cell, pair.dice.uniform(0.0, 0.7 * seconds) if not pair.attempt else 0.1


def strike(
    pair: Pair, when: tuple[int, float], blow: Callable[[Process], None]
) -> Callable[[Process], None]:
    """Wait until the run is in that cell, then strike; too late if it has ended."""

    def during(process: Process) -> None:
        since, (cell, delay) = time.time(), when
        while process.poll() is None:
            if pair.space.status(pair.node, since).get("cell", -1) >= cell:
                time.sleep(delay)
                blow(process)
                return
            time.sleep(0.02)

    return during


def killer(kind: str) -> Stage:
    """SIGKILL for the kernel, its worker or the runner."""
    codes = {"runner": -signal.SIGKILL}
    says = {
        "kernel": {**FAILED, "the cell": r"\.ipynb, cell \d+", "the remedy": AGAIN,
                   "the cause": r"the kernel died \(signal SIGKILL\) .*peak memory of .* runs out"},
        "worker": {**FAILED, "the remedy": AGAIN,
                   "the cause": "the worker was killed by signal 9, .* memory runs out"},
        "runner": {},
    }[kind]  # fmt: skip

    @contextmanager
    def stage(pair: Pair) -> Iterator[Trial]:
        pids: dict[str, int] = {}

        def blow(process: Process) -> None:
            pids.update(pair.space.processes(pair.node) | {"runner": process.pid})
            with contextlib.suppress(OSError, KeyError):
                os.kill(pids[kind], signal.SIGKILL)

        when = moment(pair)

        def survivors() -> list[str]:
            left = gone(list(pids.values()))
            return [f"the killed run's {name} lives on" for name in pids if pids[name] in left]

        yield Trial(
            pair.only("--force"), Expect(codes.get(kind, 1), says),
            strike(pair, when, blow), quiet=kind == "runner", after=survivors,
        )  # fmt: skip

    return stage


def killed(kind: str, expected: str) -> Fault:
    return Fault(
        f"{kind} killed", f"SIGKILL of the {kind} in a random cell",
        f"{expected}; every process ends; the next run does the work again",
        (killer(kind),), rerun=True, retries=True,
    )  # fmt: skip


KILLS = (
    killed("kernel", "failed, exit 1, the signal, the cell and the peak memory"),
    killed("worker", "failed, exit 1, the signal"),
    killed("runner", "nobody is left to say a word"),
)


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@contextmanager
def disk_of(folder: Path, size: int) -> Iterator[None]:
    """Put a folder on a disk of its own; what is on it in the end is in the folder afterwards."""
    side = folder.with_name(f".{folder.name}.side")
    shutil.rmtree(side, ignore_errors=True)  # of a matrix that was killed here
    shutil.copytree(folder, side)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        shutil.copytree(side, folder, dirs_exist_ok=True)
        yield
        shutil.rmtree(side)
        shutil.copytree(folder, side)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder)
        side.rename(folder)


@contextmanager
def full_disk(pair: Pair) -> Iterator[Trial]:
    """A disk with room for the result; somebody else fills it while the notebook runs."""
    folder = pair.folder
    filler = folder / ".filler"

    def blow(_: Process) -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))

    says = FAILED | {
        "the cause": "No space left on device|disk full", "the amount": "MB are missing",
        "the remedy": "Free space or run `run_all.py gc",
    }  # fmt: skip
    with disk_of(folder, 4 * pair.case.bytes + 4_000_000):
        when = moment(pair)
        yield Trial(pair.only("--force"), Expect(1, says),
                    strike(pair, when, blow))  # fmt: skip
        filler.unlink(missing_ok=True)


def needs_mounts(_: Pair) -> str:
    return "" if os.environ.get("LINGREC_FAULTS_INSIDE") else "no right to mount here"


DISK = Fault(
    "disk full", "the disk of the node fills up in a random cell (a small tmpfs)",
    "failed, exit 1, how many MB are missing and how to free them",
    (full_disk,), needs_mounts, rerun=True, retries=True,
)  # fmt: skip


@contextmanager
def no_memory(pair: Pair) -> Iterator[Trial]:
    """From a random cell on the kernel gets no more memory than it has (RLIMIT_AS)."""

    def blow(_: Process) -> None:
        with contextlib.suppress(OSError, KeyError, ValueError, StopIteration):
            pid = pair.space.processes(pair.node)["kernel"]
            lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
            has = next(int(x.split()[1]) for x in lines if x.startswith("VmSize")) * 1024
            resource.prlimit(pid, resource.RLIMIT_AS, (has, has))

    says = {
        **FAILED,
        "the cause": "(?i)memory|alloc|cannot map|failed to map|can't start new thread",
        "the peak memory": r"peak memory of \d+ MB",
        "the remedy": AGAIN,
    }
    when = moment(pair)
    yield Trial(pair.only("--force"), Expect(1, says),
                strike(pair, when, blow))  # fmt: skip


MEMORY = Fault(
    "no memory", "from a random cell on the kernel gets no more memory (RLIMIT_AS)",
    "failed, exit 1, with the peak memory", (no_memory,), rerun=True, retries=True,
)  # fmt: skip
