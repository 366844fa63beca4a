"""A tree to try commands in: a copy of this one with a finished, very small store."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "raw", "store",
            "scratch", "reports", "build")  # fmt: skip


def say(tree: Path, command: str, *, seconds: float = 500) -> subprocess.CompletedProcess[str]:
    """Run a line of shell as a reader would, in the tree's folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LINGREC_HOME": str(tree)}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=tree, env=environment, text=True,
        capture_output=True, check=False, timeout=seconds, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of three nodes of the profile smoke, so that there is something to compare."""
    tree = tmp_path_factory.mktemp("docs") / "lingrec"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (tree / "data" / "raw").mkdir(parents=True, exist_ok=True)
    (tree / ".venv").symlink_to(sys.prefix)
    profile = tree / "params" / "smoke.yaml"
    text = profile.read_text("utf-8")
    for written in (text.replace("item_core: 2", "item_core: 1", 1), text):
        profile.write_text(written, "utf-8")
        ran = say(tree, ".venv/bin/python run_all.py smoke --until baselines --no-pages")
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return tree


@pytest.fixture
def tree(finished_tree: Path, tmp_path: Path) -> Path:
    """A copy that one test may change as it likes."""
    return Path(shutil.copytree(finished_tree, tmp_path / "lingrec", symlinks=True))
