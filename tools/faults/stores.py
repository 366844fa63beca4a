"""Faults of the store: damaged, cut or missing results, and a store that cannot be written."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tools.faults.blows import mount, needs_mounts
from tools.faults.trial import Expect, Fault, Pair, Trial

__all__ = ["DAMAGED", "DAMAGED_INPUT", "MISSING_INPUT", "READ_ONLY"]


def no_upstream(pair: Pair) -> str:
    alone = "every input may be missing" if pair.case.optional else "reads no other node"
    return "" if pair.case.upstream else alone


def choose(pair: Pair) -> str:
    return pair.dice.choice(pair.case.upstream)


def garble(path: Path) -> None:
    """Other bytes of the same length, as a failing disk leaves them; a new file, never a link."""
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(b"\xff\x00garbage" * (size // 9 + 1))
    with path.open("r+b") as file:
        file.truncate(size)


def an_output(folder: Path, dice: Random, below: str = "") -> Path:
    """A file of a result that is not empty."""
    top = folder / "outputs" / below
    files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
    return dice.choice([path for path in files if path.stat().st_size])


@contextmanager
def garbage(pair: Pair) -> Iterator[Trial]:
    """An output of the node itself holds garbage: found, set aside, made again."""
    garble(an_output(pair.folder / pair.good.key, pair.dice))
    says = {"the file": r"outputs/\S+ \(changed after it was written\)"}
    yield Trial(pair.only(), Expect(0, says))  # heals, and intact proves it


@contextmanager
def cut_manifest(pair: Pair) -> Iterator[Trial]:
    """The manifest of the node itself ends in the middle: the result counts as none."""
    path = pair.folder / pair.good.key / "manifest.json"
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    path.write_bytes(half)
    yield Trial(pair.only("--explain"),
                Expect(0, {"the verdict": "RUN", "the reason": "never finished|is gone"}),
                intact=False)  # fmt: skip
    pair.space.restore(pair.node)


DAMAGED = Fault(
    "damaged result", "the node's own manifest is cut in half; then one of its outputs is garbage",
    "a cut manifest is no result (asked by --explain); garbage is named, set aside, made again",
    (cut_manifest, garbage),
)  # fmt: skip


@contextmanager
def garbage_upstream(pair: Pair) -> Iterator[Trial]:
    """A file that the node reads holds garbage."""
    node = choose(pair)
    subs = [r.partition("/")[2] for r in pair.case.inputs.values() if r.partition("/")[0] == node]
    garble(
        an_output(
            pair.space.store.folder(node) / pair.space.result(node).key,
            pair.dice,
            pair.dice.choice(subs),
        )
    )
    says = {"the file": rf"needs {node}, whose result is corrupt: outputs/\S+ \(changed",
            "the remedy": f"run `run_all.py smoke --until {node}`"}  # fmt: skip
    yield Trial(pair.only(), Expect(3, says))
    pair.space.restore(node)


@contextmanager
def cut_manifest_upstream(pair: Pair) -> Iterator[Trial]:
    """The manifest of a node that it reads ends in the middle."""
    node = choose(pair)
    path = pair.space.store.folder(node) / pair.space.result(node).key / "manifest.json"
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    path.write_bytes(half)
    says = {"the node": f"needs {node}, which has no finished result",
            "the remedy": f"run `run_all.py smoke --until {node}`"}  # fmt: skip
    yield Trial(pair.only("--force"), Expect(3, says))
    pair.space.restore(node)


DAMAGED_INPUT = Fault(
    "damaged input", "a file of a node that it reads holds garbage; then that node's manifest is "
    "cut in half", "blocked, exit 3, the node, the file, and the command that makes it again",
    (garbage_upstream, cut_manifest_upstream), no_upstream,
)  # fmt: skip


@contextmanager
def no_upstream_result(pair: Pair) -> Iterator[Trial]:
    """The result that it reads was deleted."""
    node = choose(pair)
    shutil.rmtree(pair.space.store.folder(node))
    says = {"the node": f"needs {node}, which has no finished result",
            "the remedy": f"run `run_all.py smoke --until {node}`"}  # fmt: skip
    yield Trial(pair.only("--force"), Expect(3, says))
    pair.space.restore(node)


MISSING_INPUT = Fault(
    "missing input", "the result of a node that it reads was deleted",
    "blocked, exit 3, the node and the command that makes it", (no_upstream_result,), no_upstream,
)  # fmt: skip


@contextmanager
def read_only(pair: Pair, words: tuple[str, ...], expect: Expect) -> Iterator[Trial]:
    """The whole store mounted read-only."""
    place = str(pair.space.home.store)
    mount("--bind", place, place)
    try:
        mount("-o", "remount,ro,bind", place)
        yield Trial(pair.only(*words), expect)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def read_only_done(pair: Pair) -> Iterator[Trial]:
    """What is complete is still served."""
    with read_only(pair, (), Expect(0, {"the verdict": "1 done"})) as trial:
        yield trial


@contextmanager
def read_only_forced(pair: Pair) -> Iterator[Trial]:
    """What has to run is refused."""
    says = {"the node": pair.node, "the cause": "Read-only file system",
            "the remedy": "expected a folder with write permission"}  # fmt: skip
    with read_only(pair, ("--force",), Expect(3, says)) as trial:
        yield trial


READ_ONLY = Fault(
    "read-only store", "the store is mounted read-only",
    "a complete result is served, exit 0; what has to run is blocked, exit 3",
    (read_only_done, read_only_forced), needs_mounts,
)  # fmt: skip
