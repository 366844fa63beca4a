"""Profile games-2023 against a stub hub on loopback: fetched, explained, examined, and started dry.

The hub serves what the profile pins: a random Qwen2 of two layers and a few hundred reviews. In the
dry start every setting of size is cut and every other one, families and stages included, is the
profile's own.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml

from lib.pipeline.profile import CODE_ROOT

GAMES = "params/games-2023.yaml"
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


class Hub(BaseHTTPRequestHandler):
    """Serves files by the path under which the hub's client asks for them."""

    files: ClassVar[dict[str, tuple[str, bytes]]] = {}  # path: commit, content

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        if self.path not in self.files:
            self.send_error(404)
            return
        commit, content = self.files[self.path]
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Quiet."""


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


def tiny_qwen2(folder: Path) -> dict[str, bytes]:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from lib.language.tokens import train_tokenizer

    tokenizer = train_tokenizer(["Space game & quest, part 1", "untitled item"] * 20, n_tokens=300)
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)  # as the hub has it
    tokenizer.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this profile and these notebooks, and nothing in data/."""
    for name in ("params", "notebooks", "data/raw"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / GAMES).write_text((CODE_ROOT / GAMES).read_text("utf-8"), "utf-8")
    for notebook in (CODE_ROOT / "notebooks").glob("*.ipynb"):
        (tmp_path / "notebooks" / notebook.name).write_bytes(notebook.read_bytes())
    return tmp_path


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Whatever the profile fetches, at the commits it pins."""
    content = {"dataset": reviews_and_items(), "model": tiny_qwen2(tmp_path_factory.mktemp("qwen"))}
    for wish in yaml.safe_load((CODE_ROOT / GAMES).read_text("utf-8"))["fetch"]:
        prefix = "/datasets" if wish["kind"] == "dataset" else ""
        for file in wish["files"]:
            path = f"{prefix}/{wish['repo']}/resolve/{wish['revision']}/{file['path']}"
            Hub.files[path] = (wish["revision"], content[wish["kind"]][file["path"]])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def command(project: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LINGREC_HOME": str(project), "COLUMNS": "200"} | more
    return subprocess.run(
        [sys.executable, str(CODE_ROOT / "run_all.py"), *words], env=environment, cwd=project,
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


def cut_to_size(project: Path) -> None:
    """The profile again with the settings of ``SMALL``."""
    path = project / GAMES
    profile = yaml.safe_load(path.read_text("utf-8"))
    for node, params in SMALL.items():
        profile["nodes"][node].setdefault("params", {}).update(params)
    path.write_text(yaml.safe_dump(profile, sort_keys=False), "utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_profile_is_fetched_explained_examined_and_starts(project: Path, hub: str) -> None:
    before = command(project, "games-2023", "--explain")
    assert "try `run_all.py fetch games-2023`" in before.stdout

    fetched = command(project, "fetch", "games-2023", HF_ENDPOINT=hub)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.count("fetched ") == len(Hub.files)

    explained = command(project, "games-2023", "--explain")
    assert explained.returncode == 0
    assert "BLOCKED" not in explained.stdout
    assert all(f"\n{stage} " in explained.stdout for stage in STAGES)
    examined = command(project, "doctor", "--profile", "games-2023")
    assert "ok    profile" in examined.stdout, examined.stdout

    cut_to_size(project)
    ran = command(project, "games-2023", "--no-pages")
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    store = project / "data" / "store" / "games-2023" / "sasrec"
    (published,) = store.glob("*/outputs/tables/published.parquet")
    import polars as pl

    beside = pl.read_parquet(published)
    assert beside.filter(pl.col("published row") == "LLM2Rec")["ours"].null_count() == 0
