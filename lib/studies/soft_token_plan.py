"""Before anything is trained: what is predicted from what, and how much memory it will take."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.histories import Histories
from lib.language.lexical import lexical_embeddings
from lib.studies.soft_token_loss import LossConfig

__all__ = ["count_splits", "memory_plan", "read_title_rows"]

MIB = 2**20
FLOAT = 4
FULL_CHUNK = 256  # positions whose logits lie in memory together on a CPU (lib/train/chunked.py)
SAVED_PER_LAYER = 34  # activations a decoder layer keeps for its backward pass, in model widths


def count_splits(histories: Histories) -> pl.DataFrame:
    """Real counts of the split: who has targets, how many, and how many of them no one trained."""
    lines = []
    for name, targets in histories.targets.items():
        wanted = histories.target_items(targets)
        lines.append({
            "split": name, "users": len(np.unique(targets.users)), "targets": len(targets),
            "share of targets": len(targets) / max(1, sum(map(len, histories.targets.values()))),
            "items": len(np.unique(wanted)),
            "never trained": int((histories.counts[wanted] == 0).sum()),
        })  # fmt: skip
    return pl.DataFrame(lines)


def memory_plan(
    *,
    n_users: int,
    n_items: int,
    d_rec: int,
    d_model: int,
    n_layers: int,
    trunk: int,  # numbers in the trunk
    positions: int,  # per step, padding counted
    loss: LossConfig,
    frozen: bool = False,
) -> pl.DataFrame:
    """What one training step holds, in MiB; adding it up is the plan, a dry start the proof."""
    sampled = loss.is_sampled(n_items)
    tables = (n_users + n_items + 1) * d_rec * FLOAT
    logits = positions * loss.n_sampled if sampled else min(positions, FULL_CHUNK) * n_items
    bpr = positions * loss.n_negatives * (d_rec if loss.pool == "position" else 1) * bool(loss.bpr)
    dense = 0 if sampled else (n_items + 1) * d_rec * FLOAT
    kept = positions * SAVED_PER_LAYER * n_layers * d_model
    lines = [
        ("user and item tables", tables, f"({n_users:,} + {n_items:,}) rows of {d_rec}"),
        ("two moments of Adam for them", 2 * tables, "read and written by touched rows only"),
        ("gradient of the item table", dense, "touched rows only" if sampled else "dense"),
        ("logits", 3 * logits * FLOAT,
         f"{positions:,} positions × {loss.n_sampled:,} sampled items" if sampled
         else f"{min(positions, FULL_CHUNK)} positions at a time × {n_items:,} items"),
        ("the plain softmax, not made", 3 * positions * n_items * FLOAT, "what chunks avoid"),
        ("BPR negatives", 2 * bpr * FLOAT, f"{loss.n_negatives} a position, pool {loss.pool}"),
        ("trunk", trunk * FLOAT, "weights"),
        ("trunk's gradient and moments", 0 if frozen else 3 * trunk * FLOAT,
         "none: frozen" if frozen else "gradient, two moments"),
        ("states kept for the backward pass", kept * FLOAT, f"{n_layers} layers of {d_model}"),
    ]  # fmt: skip
    made = sum(size for name, size, _ in lines if "not made" not in name)
    lines.append(("in all, without the plain softmax", made, ""))
    return pl.DataFrame(
        [{"part": name, "MiB": size / MIB, "how": how} for name, size, how in lines]
    )


def read_title_rows(
    source: str, histories: Histories, embeddings: Path | None, *, n_dims: int, seed: int
) -> NDArray[np.float32] | None:
    """One row per item and row 0 for padding: none, TF-IDF, or a file of 24's embeddings."""
    if source == "none":
        return None
    if source == "tfidf":
        rows = lexical_embeddings(histories.titles[1:], n_dims=n_dims, seed=seed)
        return np.vstack([np.zeros((1, n_dims), np.float32), rows])
    file = None if embeddings is None else embeddings / f"{source}.npy"
    if file is None or not file.is_file():
        raise FileNotFoundError(
            f"titles_from={source!r}: no {source}.npy among the embeddings; expected 'none', "
            "'tfidf' or a stage of 24_extract_item_embeddings given as input `embeddings`"
        )
    found: NDArray[Any] = np.load(file, allow_pickle=False)
    if len(found) != histories.n_items + 1:
        raise ValueError(f"{file.name} has {len(found)} rows, expected {histories.n_items + 1}: "
                         "extract it from the same histories")  # fmt: skip
    return np.asarray(found, dtype=np.float32)
