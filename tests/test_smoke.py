"""Every notebook, headless, in its smallest size: the same code path as a real run."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from lib.pipeline.profile import Home, load_profile

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_smoke_profile_runs_every_notebook_and_leaves_readable_numbers():
    ran = subprocess.run(
        [sys.executable, "run_all.py", "smoke", "--keep-going"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    nodes = load_profile(Home(ROOT), "smoke").nodes
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {node.notebook for node in nodes.values()} == notebooks
    metrics = json.loads((ROOT / "reports" / "metrics.json").read_text("utf-8"))
    found = [m for m in metrics if m["profile"] == "smoke" and m["node"] in nodes]
    assert all(math.isfinite(m["value"]) for m in found)
    assert {m["node"] for m in found} >= set(nodes) - {"embeddings"}
    for node in nodes:
        page = (ROOT / "reports" / "smoke" / f"{node}.html").read_text("utf-8")
        assert "<script" not in page
    ndcg = {m["row"]: m["value"] for m in found
            if m["node"] == "sasrec" and m["metric"] == "ndcg@10" and m["segment"] == "all"}  # fmt: skip
    assert ndcg["ceiling"] > max(value for row, value in ndcg.items() if row != "ceiling")
