"""A copy of the project with a finished smoke store, in which faults can be staged.

FOLDER/tree   the project as it was copied; every run happens here
FOLDER/good   its results after one undisturbed run: what every result must equal again
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lib.data.files import read_json, sha256_of
from lib.pipeline.keys import Hashes, digest
from lib.pipeline.profile import Home, Profile, load_profile, read_yaml
from lib.pipeline.schema import Field, parse_schema, read_notebook
from lib.pipeline.store import Result, Store
from tools.faults.forks import Command, Forks

__all__ = ["Answer", "Case", "Workspace"]

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("lib", "notebooks", "params", "tools", "run_all.py", "requirements.lock")
PROFILE = "smoke"
DEAD_HUB = "http://127.0.0.1:9"  # nothing listens there: a run that asks a hub fails at once
LONGEST = 3600.0  # seconds for one command, on a machine that others use too
Process = Command


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    said: str


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the matrix: a node, with what its last undisturbed run tells."""

    node: str
    notebook: str
    inputs: dict[str, str]  # those it cannot run without
    optional: dict[str, str]
    schema: dict[str, Field]
    cells: tuple[tuple[int, float], ...]  # code cells: index and seconds
    bytes: int

    @property
    def upstream(self) -> list[str]:
        """The nodes that it reads, in the order of their names."""
        return sorted({reference.partition("/")[0] for reference in self.inputs.values()})


class Workspace:
    """The tree, its undisturbed results, and the real command line."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "tree"
        self.home = Home(self.root)
        self.store = Store(self.home, PROFILE)
        self.good = Store(Home(folder / "good"), PROFILE)
        self.forks: Forks | None = None
        self.rerun: set[str] = set()  # nodes that were run again, and came out the same

    def make(self, until: tuple[str, ...] = ()) -> bool:
        """Copy the tree and run the smoke profile where that is not done; True for a new copy."""
        stamp, now = self.folder / "copied", tree_digest(ROOT)
        fresh = not stamp.exists() or stamp.read_text("utf-8") != now
        if fresh:
            for old in ("good", "hostile"):
                shutil.rmtree(self.folder / old, ignore_errors=True)
            self.copy_tree()
        wanted = until or tuple(self.profile().nodes)
        if any(self.good.current(node) is None for node in wanted):
            words = [word for node in wanted for word in ("--until", node)]
            answer = self.run(PROFILE, *words, "--keep-going", limit=3600)
            if answer.code:
                raise SystemExit(f"the undisturbed smoke run failed:\n{answer.said[-3000:]}")
            for node in self.profile().upstream(set(wanted)):
                if self.good.current(node) is None:
                    shutil.copytree(self.store.folder(node), self.good.folder(node))
        stamp.write_text(now, "utf-8")
        return fresh

    def mend(self) -> None:
        """Undo what a matrix that was killed in the middle of a fault has left."""
        shutil.copy2(ROOT / "params" / f"{PROFILE}.yaml", self.root / "params")
        shutil.rmtree(self.root / "data" / "raw", ignore_errors=True)
        for node in self.profile().nodes:
            if self.good.current(node) and not self.as_made(node):
                self.restore(node)

    def copy_tree(self) -> None:
        """The code as it is now; results that still fit it are not made again."""
        for name in COPIED:
            source, target = ROOT / name, self.root / name
            if source.is_dir():
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                self.root.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def environment(self) -> dict[str, str]:
        """This environment, for the tree, with no hub to ask; each module is compiled once."""
        own = {"PYTHONPATH": str(self.root), "LINGREC_HOME": str(self.root), "COLUMNS": "200"}
        return os.environ | own | {"HF_ENDPOINT": DEAD_HUB, "PYTHONDONTWRITEBYTECODE": ""}

    def start(self, *words: str, pages: bool = False) -> Process:
        """Start ``run_all.py``; its words go into a file, so that no pipe can fill."""
        without = ["--no-pages"] if words[0] == PROFILE and not pages else []
        self.forks = self.forks or Forks(self.root, self.environment())
        return self.forks.start(self.folder / "said.txt", [*words, *without])

    def run(
        self, *words: str, during: Callable[[Process], None] | None = None,
        limit: float = LONGEST, pages: bool = False,
    ) -> Answer:  # fmt: skip
        """Run ``run_all.py`` to its end; ``during`` may disturb it meanwhile."""
        process = self.start(*words, pages=pages)
        try:
            if during is not None:
                during(process)
            code, more = process.wait(limit), ""
        except subprocess.TimeoutExpired:
            code, more = 124, f"no end within {limit:g} s"
        finally:
            if process.poll() is None:  # too long, or somebody ended the matrix
                process.terminate()
                process.wait(30)
        said = (self.folder / "said.txt").read_text("utf-8", "replace") + more
        return Answer(code, said.replace(f"{self.root}/", ""))  # results name no place of ours

    def profile(self) -> Profile:
        return load_profile(self.home, PROFILE)

    @contextmanager
    def changed_profile(
        self, node: str, change: Callable[[dict[str, Any]], None], **top: object
    ) -> Iterator[None]:
        """``params/smoke.yaml`` with one node described in another way, one node a line."""
        path = self.root / "params" / f"{PROFILE}.yaml"
        text = path.read_text("utf-8")
        nodes = cast(dict[str, Any], read_yaml(text, path.name)[0])["nodes"]
        change(nodes[node])
        lines = [f"  {name}: {json.dumps(spec)}" for name, spec in nodes.items()]
        lines += [f"{key}: {json.dumps(value)}" for key, value in top.items()]
        path.write_text("\n".join(["about: a fault", "nodes:", *lines, ""]), "utf-8")
        try:
            yield
        finally:
            path.write_text(text, "utf-8")

    def result(self, node: str) -> Result:
        """The undisturbed result of a node."""
        result = self.good.current(node)
        if result is None:
            raise SystemExit(
                f"{node} has no undisturbed result; remove {self.folder.name}/ and retry"
            )
        return result

    def case(self, node: str) -> Case:
        """What is known of a node from its undisturbed run."""
        spec, result = self.profile().nodes[node], self.result(node)
        cells = cast(list[dict[str, float]], result.record["cells"])
        notebook = read_notebook(self.home.notebook(spec.notebook))
        parts: tuple[dict[str, str], dict[str, str]] = {}, {}
        for name, reference in spec.inputs.items():
            parts[name in spec.optional][name] = reference
        return Case(
            node, spec.notebook, *parts, parse_schema(notebook, spec.notebook),
            tuple((int(cell["index"]), cell["seconds"]) for cell in cells),
            sum(path.stat().st_size for path in result.folder.rglob("*") if path.is_file()),
        )  # fmt: skip

    def loss(self, node: str) -> list[str]:
        """What is missing or damaged in the current result of a node: nothing may ever be."""
        current, good = self.store.current(node), self.result(node)
        if current is None:
            return ["no result is left"]
        if current.key != good.key:
            return [f"the current result is {current.key}, not {good.key}"]
        return self.store.damage(current, Hashes(self.home.store, trust=False))

    def leftovers(self, node: str) -> list[str]:
        """What an ended run must not leave beside results."""
        names = {path.name for path in self.store.folder(node).iterdir()}
        kept = {"current", "log.txt"} | {r.key for r in self.store.results(node)}
        return sorted(n for n in names - kept if not n.startswith(("corrupt-", "scratch-")))

    def untouched(self, node: str) -> bool:
        """Whether a later run finds what it would find had nothing happened.

        Nothing reads the log and the page of a failure, and scratch without a file is empty.
        """
        names = [path for path in self.store.folder(node).iterdir() if path.name != "failed"]
        scratch = [path for path in names if path.name.startswith("scratch-")]
        rest = {path.name for path in names} - {path.name for path in scratch} - {"log.txt"}
        return (
            rest == {"current", self.result(node).key} and not self.loss(node)
            and not any(path.is_file() for place in scratch for path in place.rglob("*"))
        )  # fmt: skip

    def as_made(self, node: str) -> bool:
        """Whether the result is the undisturbed one itself, measured times included."""
        if self.loss(node) or self.leftovers(node):
            return False
        good = self.result(node).folder / "manifest.json"
        return (
            self.store.folder(node) / good.parent.name / good.name
        ).read_bytes() == good.read_bytes()

    def restore(self, node: str) -> None:
        """Bring one node's folder back to what the undisturbed run left.

        A result that was made again holds other times, and whoever reads it would have to run.
        """
        folder = self.store.folder(node)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.good.folder(node), folder)

    def status(self, node: str, since: float) -> dict[str, Any]:
        """What the worker says of the cell under way, if it began after ``since``."""
        try:
            told = cast(dict[str, Any], read_json(self.store.folder(node) / "status.json"))
        except (OSError, ValueError):
            return {}
        return told if told["started"] >= since - 1 else {}

    def processes(self, node: str) -> dict[str, int]:
        """Numbers of the worker and the kernel that hold a node's lease."""
        try:
            lease = cast(dict[str, list[float]], read_json(self.store.folder(node) / "lease.json"))
            return {kind: int(lease[kind][0]) for kind in ("worker", "kernel") if kind in lease}
        except (OSError, ValueError):
            return {}


def tree_digest(root: Path) -> str:
    """The code that decides results; the matrix itself is not part of it."""
    files = [path for name in COPIED for path in (
        sorted((root / name).rglob("*")) if (root / name).is_dir() else [root / name]
    ) if path.is_file() and path.suffix != ".pyc"
      and "faults" not in path.relative_to(root).parts]  # fmt: skip
    return digest({path.relative_to(root).as_posix(): sha256_of(path) for path in files})


def gone(pids: list[int], seconds: float = 60.0) -> list[int]:
    """The processes that do not end within some seconds; those in which we stood still are free."""
    for _ in range(int(seconds / 0.05)):
        left = [pid for pid in pids if alive(pid)]
        if not left:
            return []
        time.sleep(0.05)
    return left


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
