"""Texts that a language model may learn from: titles, and reviews of training interactions alone.

A review is written after its purchase, so the review of a held-out interaction gives away who
bought what.  Reviews are therefore joined to the training part by item and time.
"""

from pathlib import Path

import numpy as np
import polars as pl

from lib.data.blocks import RowCheck
from lib.data.formats import json_frames
from lib.data.histories import Histories
from lib.data.sources import find_files

__all__ = ["training_texts"]


def training_texts(
    histories: Histories, raw: Path | None, *, max_reviews: int, max_bad_share: float = 0.0
) -> list[str]:
    """Distinct titles, then distinct review texts of training interactions (Amazon JSONL)."""
    titles = [title for title in histories.titles[1:] if title.strip()]
    if raw is None or max_reviews == 0:
        return list(dict.fromkeys(titles))
    within = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], histories.lengths)
    training = within < np.repeat(histories.train_lengths, histories.lengths)
    bought = pl.DataFrame(
        {
            "item": np.asarray(histories.item_keys, dtype=object)[
                histories.items[training]
            ].tolist(),
            "time": np.asarray(histories.times[training]),
        },
        schema={"item": pl.String, "time": pl.Int64},
    ).unique()
    roles = {"item": "parent_asin", "time": "timestamp", "text": "text"}
    reviews: list[str] = []
    for path in find_files(raw, "*.jsonl*", without="meta_*"):
        for frame, _ in json_frames(path, roles, RowCheck(path, max_bad_share)):
            kept = frame.with_columns(pl.col("time").cast(pl.Int64)).join(
                bought, on=["item", "time"], how="semi"
            )
            reviews += kept["text"].drop_nulls().to_list()
            if len(reviews) >= max_reviews:
                break
    spoken = (text.strip() for text in reviews[:max_reviews])
    return list(dict.fromkeys([*titles, *(text for text in spoken if text)]))
