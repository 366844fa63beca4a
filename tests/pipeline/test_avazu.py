"""Profile avazu against a stub hub on loopback: fetched as zips, and started dry from 11 to 43.

The hub serves three zips of a few hundred rows in the columns of the published files and a random
Qwen3 of two layers.  Every setting of size is cut; every other one is the profile's own.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lib.data.avazu import CONTENT, FEATURES, TEXT
from tests.pipeline.hub import command, cut_to_size, make_project, serve, tiny_qwen

N_ROWS = 800
DEEPFM = {"hidden": [8], "batch": 128, "epochs": 1}
ROWS = {"epochs": 1, "batch": 32, "max_rows": 64, "n_validation": 40}
SMALL = {
    **dict.fromkeys(("deepfm_x1", "deepfm_x2", "deepfm_x4"), DEEPFM),
    **{f"llm_ctr_{row}": {**ROWS, "d_projector": 8}
       for row in ("phase1", "x4", "pooled", "residual", "lora", "multitask")},
    "llm_ctr_phase2": ROWS,
    "llm_ctr": {"max_rows": 80, "n_analysed": 100, "perplexities": [3.0, 5.0], "draws": 100},
}  # fmt: skip


def write_zip(frame: pl.DataFrame, edges: dict[str, int]) -> bytes:
    """A zip of CSV files, each with the rows up to its edge."""
    held, begin = io.BytesIO(), 0
    with zipfile.ZipFile(held, "w") as archive:
        for name, end in edges.items():
            archive.writestr(f"{name}.csv", frame[begin:end].write_csv())
            begin = end
    return held.getvalue()


def published_rows() -> dict[str, dict[str, bytes]]:
    """The same random rows in the columns of x1, x2 and x4; clicks follow the site."""
    rng = np.random.default_rng(3)
    codes = np.stack([rng.integers(0, 3 + 2 * (i % 5), N_ROWS) for i in range(21)], axis=1)
    label = (rng.random(N_ROWS) < 0.1 + 0.5 * (codes[:, 2] % 3 == 0)).astype(int)
    hour, day = rng.integers(0, 24, N_ROWS), np.sort(rng.integers(0, 10, N_ROWS))
    numbers = {name: codes[:, i] + 100 * i + 1 for i, name in enumerate(CONTENT)}
    x1 = {"label": label, **dict(zip(FEATURES, numbers.values(), strict=True)),
          "feat_22": hour + 1_544_248}  # fmt: skip
    x2 = {"click": label, **numbers, "hour": hour + 645_164, "mday": day + 645_154,
          "wday": (day + 1) % 7 + 645_188}  # fmt: skip
    x4 = {"id": np.arange(N_ROWS) + 10**18, "click": label, "hour": 14_102_100 + day * 100 + hour}
    x4 |= {name: [f"{value:08x}" for value in own] if name in TEXT else own
           for name, own in numbers.items()}  # fmt: skip
    ends = {"x1": {"train": 560, "valid": 640, "test": 800}, "x2": {"train": 640, "test": 800},
            "x4": {"train": 640, "valid": 720, "test": 800}}  # fmt: skip
    frames = {"x1": x1, "x2": x2, "x4": x4}
    return {f"reczoo/Avazu_{name}": {f"Avazu_{name}.zip": write_zip(pl.DataFrame(frame), ends[name])}
            for name, frame in frames.items()}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_profile_is_fetched_and_runs_from_the_zips_to_the_comparison(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = make_project(tmp_path / "project", "avazu")
    before = command(project, "avazu", "--explain")
    assert "try `run_all.py fetch avazu`" in before.stdout
    prompt = "Based on the following user features, Answer with 1 for click or 0 for no click: Yes"
    model = tiny_qwen(tmp_path_factory.mktemp("qwen"), "qwen3", [prompt])
    with serve("avazu", {**published_rows(), "model": model}) as hub:
        refused = command(project, "fetch", "avazu", HF_ENDPOINT=hub)
        assert "--allow-unpinned" in refused.stderr + refused.stdout
        fetched = command(project, "fetch", "avazu", "--allow-unpinned", HF_ENDPOINT=hub)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.count("write `revision: ") == 3

    cut_to_size(project, "avazu", SMALL, cpu=1)
    ran = command(project, "avazu", "--until", "llm_ctr", "--no-pages", CUDA_VISIBLE_DEVICES="")
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    store = project / "data" / "store" / "avazu" / "llm_ctr"
    (told,) = store.glob("*/outputs/evaluation.json")
    asked = {"phase1", "phase2", "x4", "pooled", "residual", "lora", "multitask"}
    assert json.loads(told.read_text("utf-8"))["scenarios"].keys() - {"random projector"} == asked
    (logits,) = store.glob("*/outputs/logits.parquet")
    assert len(pl.read_parquet(logits)) == 80
