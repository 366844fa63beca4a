"""What one GPU gives: SASRec, a next-title step, embeddings and DeepFM, each a minute or less.

    python tools/bench_device.py                       # all rows on the GPU, minutes
    python tools/bench_device.py --device cpu --small  # a try where there is none

Drawn data of real sizes: ML-1M's sequences, titles of 20 tokens and the vocabulary of Qwen, a
language model of 6 layers of 256, click rows of 22 fields with 824,170 ids.  Without a GPU one line
says so and nothing is measured.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_click_models import FIELD_SIZES
from bench_language import make_model
from bench_sasrec import make_histories, read_sequences
from bench_sasrec import make_model as make_sasrec

from lib.language.backbone import set_attention
from lib.language.collaborative import Branches, NextTitles, TitleTokens, next_title_loss
from lib.language.embed import embed_tokens
from lib.language.tokens import TokenTable
from lib.models.fields import Sizes
from lib.models.ladder import build_click_model
from lib.studies.sequences import rank_split, sample_targets, train_sasrec
from lib.studies.texts import TextSource, count_labels
from lib.train.loop import train
from lib.train.losses import binary_cross_entropy, full_softmax
from lib.train.plan import Plan
from lib.train.sources import TensorSource

N_TOKENS = 151_936


def sasrec(device: str, scale: float) -> dict[str, float]:
    """Targets a second at 200 positions, and the full ranking of every user's test item."""
    sequences, _ = read_sequences(Path("none"), int(6_040 * scale))
    with tempfile.TemporaryDirectory() as folder:
        histories = make_histories(Path(folder), sequences)
        model = make_sasrec(histories, 200)
        few = sample_targets(histories.targets["valid"], 64, seed=1)
        plan = Plan(learning_rate=3e-3, seed=1, epochs=4 if scale == 1 else 1, batch=256)
        options = {"valid": few, "filter_seen": False, "device": device}
        trained = train_sasrec(model, histories, plan, **options)  # type: ignore[arg-type]
        test = histories.targets["test"]
        seconds = median_seconds(
            lambda: rank_split(model, histories, test, filter_seen=True, device=device), device
        )
    return {"targets_per_second": trained.terms_per_second, "evaluation_seconds": seconds,
            "peak_mib": trained.peak_memory / 2**20}  # fmt: skip


def titles(n: int) -> TokenTable:
    generator = np.random.default_rng(1)
    lengths = generator.integers(8, 33, n)
    return TokenTable.from_rows([generator.integers(5, N_TOKENS, k) for k in lengths])


def csft(device: str, scale: float) -> dict[str, float]:
    """Target tokens a second of the next-title step, ten titles of history."""
    table, n_rows = titles(5_000), int(4_000 * scale)
    tokens = TitleTokens(table, table, table, np.zeros(len(table), dtype=bool))
    items = np.random.default_rng(2).integers(1, len(table), 11 * n_rows).astype(np.int32)
    rows = [Branches(11 * row, (11 * row + 10,)) for row in range(n_rows)]
    made = NextTitles(items, rows, tokens, max_tokens=1024, pad_id=0)
    source = TextSource(made, budget=16_384, seed=1, device=device)
    model = make_model("small", N_TOKENS).to(device)
    result = train(
        model, source, lambda net, batch: next_title_loss(net, batch, criterion=full_softmax),
        plan=Plan(learning_rate=1e-4, seed=1, epochs=1, clip=1.0), count=count_labels,
    )  # fmt: skip
    return {"target_tokens_per_second": result.terms_per_second,
            "peak_mib": result.peak_memory / 2**20}  # fmt: skip


def embed(device: str, scale: float) -> dict[str, float]:
    """Titles a second in bfloat16, both ways of attention allowed."""
    table = titles(int(12_101 * scale))
    model = make_model("small", N_TOKENS).to(device).eval()
    set_attention(model, "bidirectional")  # type: ignore[arg-type]
    seconds = median_seconds(
        lambda: embed_tokens(model, table, token_budget=65_536, pad_id=0, precision=torch.bfloat16),
        device,
    )
    return {"texts_per_second": len(table) / seconds}


def deepfm(device: str, scale: float) -> dict[str, float]:
    """Training rows a second, tables with lazy Adam."""
    n_rows, generator = int(2_000_000 * scale), np.random.default_rng(1)
    local = [(size ** generator.random(n_rows)).astype(np.int64) - 1 for size in FIELD_SIZES]
    ids = np.stack(local, axis=1) + np.cumsum([0, *FIELD_SIZES[:-1]])
    labels = (generator.random(n_rows) < 0.16).astype(np.int8)
    source = TensorSource({"categorical": ids.astype(np.int32), "label": labels}, batch=16_384,
                          seed=1, device=device)  # fmt: skip
    sizes = Sizes(n_ids=sum(FIELD_SIZES), n_fields=len(FIELD_SIZES))
    settings = {"d_embedding": 16, "hidden": [400, 400, 400], "dropout": 0.0}
    model = build_click_model("deepfm", sizes, settings).to(device)
    result = train(
        model, source,
        lambda net, batch: binary_cross_entropy(net(batch), batch["label"].float()),
        plan=Plan(learning_rate=1e-3, seed=1, epochs=1),
    )  # fmt: skip
    return {"rows_per_second": result.rows_per_second, "peak_mib": result.peak_memory / 2**20}


def median_seconds(call: Callable[[], object], device: str) -> float:
    taken = []
    for _ in range(3):
        wait(device)
        begun = time.perf_counter()
        call()
        wait(device)
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def wait(device: str) -> None:
    """A GPU answers before it is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


CASES = {"SASRec, 200 positions": sasrec, "next-title step, vocabulary 151,936": csft,
         "12,101 titles": embed, "DeepFM, 824,170 ids": deepfm}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a hundredth of everything")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"case": "GPU", "measured": False, "problem": "no GPU is visible"}))
        return
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    for case, measure in CASES.items():
        answer = measure(options.device, 0.01 if options.small else 1)
        print(json.dumps({"case": f"{case}, {name}", **answer}), flush=True)


if __name__ == "__main__":
    main()
