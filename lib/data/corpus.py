"""Texts that a language model may learn from: titles, and reviews of training interactions alone.

A review is written after its purchase, so the review of a held-out interaction gives away who
bought what.  Reviews are therefore joined to the training part by item and time.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from lib.data.blocks import RowCheck, read_blocks
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
    schema = {"parent_asin": pl.String, "timestamp": pl.Int64, "text": pl.String}
    reviews: list[str] = []
    for path in find_files(raw, "*.jsonl*", without="meta_*"):
        for block in read_blocks(path, RowCheck(path, max_bad_share)):
            frame = pl.read_ndjson(BytesIO(block.data), schema=schema, ignore_errors=True)
            kept = frame.rename({"parent_asin": "item", "timestamp": "time"}).join(
                bought, on=["item", "time"], how="semi", maintain_order="left"
            )
            reviews += kept["text"].drop_nulls().to_list()
            if len(reviews) >= max_reviews:
                break
    spoken = (text.strip() for text in reviews[:max_reviews])
    return list(dict.fromkeys([*titles, *(text for text in spoken if text)]))
