"""Whole projects in a temporary folder: notebooks, a profile, a store, and the real command line."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.data.files import sha256_of, write_json
from lib.pipeline.keys import Hashes
from lib.pipeline.plan import Step, examine
from lib.pipeline.profile import CODE_ROOT, Home, load_profile
from lib.pipeline.store import Result, Store

START = 'run = lib.start("{name}", globals())'


class World:
    """A project of its own; its path has spaces and umlauts on purpose."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root)
        for name in ("notebooks", "params", "data/raw"):
            (root / name).mkdir(parents=True)

    def notebook(self, name: str, *cells: str, parameters: str = "", title: str = "Why?") -> None:
        """A notebook with the usual first cells; ``cells`` are the code that follows."""
        made = [("markdown", f"# {title}"), ("code", "import json\nimport time\n\nimport lib"),
                ("parameters", parameters), ("code", START.format(name=name))]  # fmt: skip
        made += [("code", cell) for cell in cells]
        nb = [
            {"cell_type": "markdown" if kind == "markdown" else "code", "id": f"cell-{n}",
             "metadata": {"tags": ["parameters"]} if kind == "parameters" else {},
             "source": source or "pass_: int = 0  # nothing",
             **({} if kind == "markdown" else {"outputs": [], "execution_count": None})}
            for n, (kind, source) in enumerate(made)
        ]  # fmt: skip
        spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
        text = {"cells": nb, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
        (self.root / "notebooks" / f"{name}.ipynb").write_text(json.dumps(text), "utf-8")

    def profile(self, nodes: str, name: str = "demo") -> None:
        (self.root / "params" / f"{name}.yaml").write_text(
            f"about: a test\nnodes:\n{nodes}", "utf-8"
        )

    def environment(self, **more: str) -> dict[str, str]:
        return os.environ | {"LINGREC_HOME": str(self.root), "COLUMNS": "200"} | more

    def command(self, *words: str) -> list[str]:
        pages = [] if words[0] in {"run-one", "status", "doctor", "diff", "gc"} else ["--no-pages"]
        return [sys.executable, str(CODE_ROOT / "run_all.py"), *words, *pages]

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*(words or ("demo",))), env=self.environment(**more),
                              cwd=self.root, capture_output=True, text=True, timeout=300,
                              check=False)  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(*(words or ("demo",))), env=self.environment(),
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                start_new_session=True)  # fmt: skip

    @property
    def store(self) -> Store:
        return Store(self.home, "demo")

    def current(self, node: str) -> Result:
        result = self.store.current(node)
        assert result is not None, f"{node} has no result"
        return result

    def value(self, node: str, name: str = "out.json") -> object:
        return json.loads(self.current(node).output(name).read_text("utf-8"))

    def examine(self, node: str) -> Step:
        return examine(self.home, load_profile(self.home, "demo"), node, Hashes(self.home.store))

    def complete(self, node: str, content: str = "{}") -> Step:
        """Give a node a result without a kernel, as the worker would have committed it."""
        step = self.examine(node)
        self.store.folder(node).mkdir(parents=True, exist_ok=True)
        with self.store.work_folder(node) as work:
            (work / "outputs").mkdir()
            (work / "outputs" / "out.json").write_text(content)
            write_json(work / "record.json", {"seconds": 1.0, "metrics": []})
            files = {path.relative_to(work).as_posix(): {
                "sha256": sha256_of(path), "bytes": path.stat().st_size
            } for path in work.rglob("*.json")}  # fmt: skip
            manifest = {"key": step.key, "components": step.parts, "files": files,
                        "made": str(time.time_ns())}  # fmt: skip
            write_json(work / "manifest.json", manifest)
            self.store.commit(node, step.key, work)
        return step

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file with its size and time, to see that nothing changed."""
        return {str(path.relative_to(self.root)): (path.stat().st_size, path.stat().st_mtime_ns)
                for path in self.root.rglob("*")}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "Große Welt")


@pytest.fixture
def pair(world: World) -> World:
    """Two nodes: ``numbers`` writes a file and ``product`` multiplies what is in it."""
    world.notebook("00_make_numbers", 'run.save("out.json", [steps, run.seed])', "run.finish()",
                   parameters="steps: int = 3  # 1..10: how many\nseed: int = 1  # 0..: seed")  # fmt: skip
    world.notebook("10_multiply_numbers",
                   'data = json.loads(run.input("x").read_text())',
                   'run.save("out.json", data[0] * factor)\nrun.metric("value", data[0] * factor)',
                   "run.finish()",
                   parameters="factor: int = 2  # 1..10: times")  # fmt: skip
    world.profile("  numbers: {notebook: 00_make_numbers}\n"
                  "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers/out.json}}\n")  # fmt: skip
    return world


def eventually(claim: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait for something another process will do."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def wait_for() -> Callable[..., bool]:
    return eventually
