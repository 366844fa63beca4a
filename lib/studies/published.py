"""Figures that others published, to stand beside ours, and what differs between the two.

Full ranking unless a table says 1 + 100; with one target a user, recall@K and hit@K are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

__all__ = ["PUBLISHED", "Published", "beside_published", "what_differs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One table: where it stands, how its setting differs from ours, and its rows."""

    source: str
    differs: str
    measures: Sequence[str]
    rows: Mapping[str, Sequence[float]]
    ours: Mapping[str, str]  # published row -> the row of ours that is meant to match it


LLM2REC = Published(
    source="LLM2Rec (KDD 2025), tables 3 and 4, Video Games, SASRec downstream, mean of 3 seeds",
    differs=(
        "Data: theirs are 9,517 items and 153,221 targets after a filter that was never published. "
        "Split: both cut time globally 8:1:1, not leave-last-out as their text says. Filter: "
        "neither leaves out seen items. Repeats: about 5 % of their test targets repeat the last "
        "item and give about half of the headline NDCG; the segments show ours. Tuning: theirs "
        "mixes six categories, ours has Video Games alone. Embeddings: theirs were most likely "
        "read out causally although trained both ways; ours are read out both ways. SASRec: "
        "theirs has norms behind the blocks and one training row a prefix and has no ID row; ours "
        "has norms before the blocks and learns at the last ten positions of a history at once."
    ),
    measures=("hit@10", "ndcg@10", "hit@20", "ndcg@20"),
    rows={
        "BERT": (0.0585, 0.0311, 0.0863, 0.0381),
        "GTE-7B": (0.0641, 0.0349, 0.0911, 0.0418),
        "BGE": (0.0733, 0.0410, 0.1022, 0.0483),
        "BLaIR": (0.0654, 0.0361, 0.0954, 0.0437),
        "EasyRec": (0.0647, 0.0357, 0.0926, 0.0428),
        "LLMEmb": (0.0813, 0.0487, 0.1085, 0.0555),
        "LLM2Vec": (0.0740, 0.0407, 0.1029, 0.0480),
        "CSFT": (0.0795, 0.0472),
        "CSFT + MNTP": (0.0801, 0.0477),
        "LLM2Rec": (0.0865, 0.0521, 0.1157, 0.0595),
    },
    ours={"LLM2Vec": "raw", "CSFT": "csft", "CSFT + MNTP": "mntp", "LLM2Rec": "llm2rec"},
)
BEAUTY = Published(
    source="S3-Rec's tables and RecBole issue 1290, Amazon Beauty 2014 5-core, leave-last-out",
    differs=(
        "Data, split and filter are the same. Theirs is one run with the settings of its authors; "
        "ours are means over seeds, tuned on validation. Their popularity counts the validation "
        "and test targets too, ours the training part alone. RecBole's row has the loss of ours "
        "(cross-entropy over all items) and leaves seen items in."
    ),
    measures=("hit@5", "ndcg@5", "hit@10", "ndcg@10"),
    rows={
        "popularity": (0.0080, 0.0044, 0.0152, 0.0068),
        "GRU4Rec": (0.0164, 0.0099, 0.0283, 0.0137),
        "BERT4Rec": (0.0203, 0.0124, 0.0347, 0.0170),
        "SASRec": (0.0387, 0.0249, 0.0605, 0.0318),
        "S3-Rec": (0.0387, 0.0244, 0.0647, 0.0327),
        "SASRec, RecBole": (float("nan"), float("nan"), 0.083, 0.0416),
    },
    ours={"popularity": "popularity", "SASRec": "id", "SASRec, RecBole": "id"},
)
ML_1M = Published(
    source="Klenitskiy and Vasilev (RecSys 2023) and gSASRec's repository, MovieLens-1M, "
    "leave-last-out, seen items left out",
    differs=(
        "Data, split and filter are the same. BCE and gSASRec draw negatives, the row with full "
        "cross-entropy has the loss of ours; ours are means over seeds."
    ),
    measures=("hit@10", "ndcg@10"),
    rows={
        "SASRec, one negative": (0.2500, 0.1341),
        "BERT4Rec": (0.2843, 0.1537),
        "gSASRec": (0.3003, 0.1726),
        "SASRec, cross-entropy": (0.3152, 0.1821),
    },
    ours={"SASRec, cross-entropy": "id"},
)
BEAUTY_SAMPLED = Published(
    source="SASRec (ICDM 2018) as its PyTorch repository measures it, three places of the norms, "
    "Amazon Beauty, target among 100 uniform items",
    differs=(
        "Data: their file of Beauty has its own preparation, ours is the 5-core of users and "
        "items, so the two columns are no reproduction. Loss: theirs draws one negative, ours is "
        "cross-entropy over all items. Each drew its own hundred."
    ),
    measures=("hit@10", "ndcg@10"),
    rows={
        "SASRec, original norms": (0.4669, 0.3104),
        "SASRec, norms before": (0.4784, 0.3193),
        "SASRec, norms behind": (0.4696, 0.3146),
    },
    ours={"SASRec, norms before": "sasrec"},
)
ML_1M_SAMPLED = Published(
    source="SASRec (ICDM 2018) and its PyTorch repository, MovieLens-1M, target among 100 uniform "
    "items",
    differs=(
        "Data and split are the same. Loss: theirs draws one negative, ours is cross-entropy over "
        "all items. Each drew its own hundred."
    ),
    measures=("hit@10", "ndcg@10"),
    rows={
        "SASRec, the paper": (0.8245, 0.5905),
        "SASRec, norms before": (0.8252, 0.5940),
        "SASRec, norms behind": (0.8270, 0.5995),
    },
    ours={"SASRec, the paper": "sasrec", "SASRec, norms before": "sasrec"},
)
PUBLISHED = {
    "games-2023": LLM2REC,
    "beauty": BEAUTY,
    "ml-1m": ML_1M,
    "beauty, 1 + 100": BEAUTY_SAMPLED,
    "ml-1m, 1 + 100": ML_1M_SAMPLED,
}


def beside_published(name: str, results: pl.DataFrame) -> pl.DataFrame:
    """One line per published figure, with ours where a row of ours is meant to match it.

    ``results`` has row, measure and value, as ``compare_rows`` gives them.

    >>> mine = pl.DataFrame({"row": ["id"], "measure": ["ndcg@10"], "value": [0.19]})
    >>> beside_published("ml-1m", mine).filter(pl.col("ours").is_not_null())["published"].to_list()
    [0.1821]
    """
    table = _find(name)
    mine = {
        (row, measure): value
        for row, measure, value in results.select("row", "measure", "value").iter_rows()
    }
    lines = [
        {"published row": row, "measure": measure, "published": figure,
         "our row": table.ours.get(row), "ours": mine.get((table.ours.get(row), measure))}
        for row, figures in table.rows.items()
        for measure, figure in zip(table.measures, figures, strict=False)
        if figure == figure
    ]  # fmt: skip
    return pl.DataFrame(lines, infer_schema_length=None).with_columns(
        pl.col("our row").cast(pl.String), pl.col("ours").cast(pl.Float64)
    )


def what_differs(name: str) -> str:
    """Source and differences, for the caption."""
    table = _find(name)
    return f"{table.source}. {table.differs}"


def _find(name: str) -> Published:
    if name not in PUBLISHED:
        raise ValueError(f"no published table {name!r}; expected one of {sorted(PUBLISHED)}")
    return PUBLISHED[name]
