"""Profile games-2023 against a stub hub on loopback: fetched, explained, examined, and started dry.

The hub serves what the profile pins: a random Qwen2 of two layers and a few hundred reviews. In the
dry start every setting of size is cut and every other one, families and stages included, is the
profile's own.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.hub import command, cut_to_size, make_project, serve, tiny_qwen

N_FILES = 7  # reviews, items, and the five of the model
STAGES = ["csft", "mntp", "llm2rec", "llm2rec_tau01"]
SMALL = {
    "csft": {"steps": 2, "accumulate": 2, "n_validation": 20, "n_written": 2, "n_constrained": 2},
    "mntp": {"steps": 2},
    "llm2rec": {"steps": 2},
    "llm2rec_tau01": {"steps": 2},
    "embeddings": {"n_points": 30, "perplexities": [3.0, 5.0], "iterations": 250},
    "sasrec": {"rows": ["id", "llm2rec", "llm2rec_tau01", "llm2rec_causal"], "seeds": [2024],
               "epochs": 1, "n_dims": 16, "tfidf_dims": 8, "draws": 100},
    "baselines": {"grid": {"history_decay": [0.3]}, "draws": 100},
}  # fmt: skip


def reviews_and_items() -> dict[str, bytes]:
    """Sixty users with ten reviews each of forty games, in the fields of Amazon Reviews 2023."""
    random = np.random.default_rng(5)
    items = [f"B{n:09d}" for n in range(40)]
    meta = [{"parent_asin": item, "main_category": "Video Games", "categories": ["Video Games"],
             "title": f"Space game {n} &amp; quest, part {n % 7}"} for n, item in enumerate(items)]  # fmt: skip
    start = 1_400_000_000_000  # milliseconds
    reviews = [
        {"user_id": f"U{user:03d}", "asin": items[item], "parent_asin": items[item], "rating": 5.0,
         "timestamp": start + int(day) * 86_400_000, "title": "good", "text": "good"}
        for user in range(60)
        for item, day in zip(random.choice(40, 10, replace=False), random.integers(3000, size=10),
                             strict=True)
    ]  # fmt: skip
    lines = {"raw/review_categories/Video_Games.jsonl": reviews,
             "raw/meta_categories/meta_Video_Games.jsonl": meta}  # fmt: skip
    return {path: "".join(json.dumps(row) + "\n" for row in rows).encode()
            for path, rows in lines.items()}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", "games-2023")


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    texts = ["Space game & quest, part 1", "untitled item"]
    model = tiny_qwen(tmp_path_factory.mktemp("qwen"), "qwen2", texts)
    with serve("games-2023", {"dataset": reviews_and_items(), "model": model}) as address:
        yield address


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_profile_is_fetched_explained_examined_and_starts(project: Path, hub: str) -> None:
    before = command(project, "games-2023", "--explain")
    assert "try `run_all.py fetch games-2023`" in before.stdout

    fetched = command(project, "fetch", "games-2023", HF_ENDPOINT=hub)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.count("fetched ") == N_FILES

    explained = command(project, "games-2023", "--explain")
    assert explained.returncode == 0
    assert "BLOCKED" not in explained.stdout
    assert all(f"\n{stage} " in explained.stdout for stage in STAGES)
    examined = command(project, "doctor", "--profile", "games-2023")
    assert "ok    profile" in examined.stdout, examined.stdout

    cut_to_size(project, "games-2023", SMALL)
    ran = command(project, "games-2023", "--no-pages")
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    store = project / "data" / "store" / "games-2023" / "sasrec"
    (published,) = store.glob("*/outputs/tables/published.parquet")
    import polars as pl

    beside = pl.read_parquet(published)
    assert beside.filter(pl.col("published row") == "LLM2Rec")["ours"].null_count() == 0
