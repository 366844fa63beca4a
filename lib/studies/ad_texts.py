"""What an ad says, beside what its clicks say: the cheap text that a language model must beat.

    rate_a    log odds of ad a's training clicks, shrunk towards the log of all ads
    prior_a   ridge regression of rate on the title's features; known ads get the prediction of the
              fold they were left out of, so that it is worth as much for them as for a new ad
    logit     c + w · [prior (1 − s), prior s, rate s, 1]      s = n / (n + 20), n training rows

c is the baseline's logit.  The four weights are fitted on validation rows, which no prior has seen
and which chose no more of c than its epoch: on training rows c has memorised the answer, and the
text would seem to have nothing to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.feature_extraction.text import TfidfVectorizer

from lib.data.clicks import Clicks
from lib.evaluate import clicks as measures
from lib.evaluate.delong import auc_difference

__all__ = ["AdTexts", "add_titles", "read_ad_texts", "segment_gains", "title_words"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SHRINK = 20.0  # rows at which an ad's own clicks weigh as much as what all ads do
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
FOLDS = 10
COLUMNS = {"C14": "feat_14"}  # the ad, under the name it has in the common schema
SEEN = ((0, 0), (1, 19), (20, 99), (100, None))  # training rows of an ad, both included


@dataclass(frozen=True)
class AdTexts:
    """The ads of a log: their titles, the ad of every row, and training rows and clicks of each."""

    titles: list[str]
    ads: Ints  # (N,) place in ``titles`` of each row's ad
    rows: Ints  # (A,) training rows
    clicks: Ints  # (A,)
    field: str  # column of the common schema that names the ad

    @property
    def doubt(self) -> Floats:
        """1 where training never saw the ad, 0.5 after ``SHRINK`` rows, towards 0.  -> (A,)"""
        return np.asarray(SHRINK / (SHRINK + self.rows), np.float64)


def read_ad_texts(clicks: Clicks, table: Path, texts: Path) -> AdTexts:
    """Every row's ad by its raw value: the ids of ``clicks`` no longer tell unseen ads apart."""
    said = pl.read_csv(texts, separator="\t", infer_schema=False)
    named = [COLUMNS.get(name, name) for name in said["field"].unique().to_list()]
    if len(named) != 1 or named[0] not in clicks.fields:
        raise ValueError(f"{texts.name} speaks of the fields {named}; expected exactly one of "
                         f"{clicks.fields}")  # fmt: skip
    field, splits = named[0], ("train", "valid", "test")  # the order in which rows were encoded
    files = [path for split in splits for path in sorted(table.glob(f"*_{split}.parquet"))]
    rows = [pl.read_parquet(path, columns=["label", field]) for path in files]
    found = pl.concat(rows) if rows else pl.DataFrame(schema=["label", field])
    labels = np.asarray(clicks.label)
    if not np.array_equal(found["label"].to_numpy(), labels):
        raise ValueError(f"the {len(found):,} rows of {table.name} are not the {len(labels):,} of "
                         "the clicks; give the table that the same node of 11_prepare_avazu "
                         "wrote")  # fmt: skip
    values = found.select(value=pl.col(field).cast(pl.String))
    ads = values.unique(maintain_order=True).join(said, on="value", how="left")
    number = ads.select("value").with_row_index("ad")
    own = values.join(number, on="value", how="left", maintain_order="left")["ad"].to_numpy()
    train, own = clicks.rows("train"), own.astype(np.int64)
    return AdTexts(
        titles=[title or "" for title in ads["title"].to_list()],
        ads=own,
        rows=np.bincount(own[train], minlength=len(ads)),
        clicks=np.bincount(own[train], labels[train], len(ads)).astype(np.int64),
        field=field,
    )


def title_words(titles: Sequence[str]) -> Floats:
    """TF-IDF of single words, not reduced: rare words are what tells ads apart.  -> (A, W)"""
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float64)
    return cast(Floats, words.fit_transform(titles).toarray())


def add_titles(
    texts: AdTexts, features: Floats | None, clicks: Clicks, valid: Ints, test: Ints,
    logits: tuple[Floats, Floats],
) -> Floats:  # fmt: skip
    """The baseline's test logits with what titles add; without features, what the ads' rates add.

    ``logits`` are the baseline's own on valid and test.  -> (N_test,)
    """
    given = _evidence(texts, features)
    own = [np.c_[given[texts.ads[rows]], np.ones(len(rows))] for rows in (valid, test)]
    weights = _fit_beside(own[0], np.asarray(clicks.label[valid], float), logits[0])
    return logits[1] + own[1] @ weights


def segment_gains(texts: AdTexts, clicks: Clicks, test: Ints, logits: dict[str, Floats],
                  *, against: str) -> pl.DataFrame:  # fmt: skip
    """AUC of every row by how often its ad was seen in training, with paired gains."""
    labels, seen = np.asarray(clicks.label[test]), texts.rows[texts.ads[test]]
    lines = []
    for low, high in ((0, None), *SEEN):
        inside = (seen >= low) & (seen <= (high if high is not None else seen.max(initial=0)))
        y = labels[inside]
        if min((y > 0).sum(), (y == 0).sum()) < 10:
            continue
        name = {(0, None): "all", (0, 0): "never"}.get((low, high), f"{low}–{high or ''}")
        for row, found in logits.items():
            line = {"ad seen in training": name, "row": row, "rows": len(y),
                    "auc": measures.auc(y, found[inside])}  # fmt: skip
            if row != against:
                gap = auc_difference(y, found[inside], logits[against][inside])
                line |= {"gain": gap.value, "low": gap.low, "high": gap.high}
            lines.append(line)
    return pl.DataFrame(lines, infer_schema_length=None)


def _evidence(texts: AdTexts, features: Floats | None) -> Floats:
    """prior (1 − s), prior s, rate s of each ad.  -> (A, 3)"""
    n, total = texts.rows, texts.clicks.sum() / max(texts.rows.sum(), 1)
    rate = np.log((texts.clicks + SHRINK * total) / (n - texts.clicks + SHRINK * (1 - total)))
    rate -= np.log(total / (1 - total))
    share = n / (n + SHRINK)
    prior = np.zeros(len(n)) if features is None else _predict_rates(features, rate, n)
    return np.c_[prior * (1 - share), prior * share, rate * share]


def _predict_rates(features: Floats, rates: Floats, n: Ints) -> Floats:
    """Ridge with the penalty that predicts left-out ads best; left-out predictions where known."""
    known = np.flatnonzero(n > 0)
    scale = np.sqrt(features[known].var(axis=0).sum()) + 1e-12
    x, weight = (features - features[known].mean(axis=0)) / scale, n / (n + 5 * SHRINK)
    folds = np.random.default_rng(0).permutation(len(known)) % FOLDS
    best = (np.inf, np.zeros(len(n)))
    for penalty in PENALTIES:
        found = _ridge(x[known], rates[known], weight[known], penalty / 100, x)
        for fold in range(FOLDS):
            rest, out = known[folds != fold], known[folds == fold]
            found[out] = _ridge(x[rest], rates[rest], weight[rest], penalty / 100, x[out])
        error = float((weight[known] * (found[known] - rates[known]) ** 2).sum())
        best = min(best, (error, found), key=lambda pair: pair[0])
    return best[1]


def _ridge(x: Floats, y: Floats, weight: Floats, penalty: float, wanted: Floats) -> Floats:
    """Weighted ridge in its dual form: as many unknowns as ads, whatever the features' number."""
    mean = np.average(y, weights=weight)
    kernel = x @ x.T + penalty * np.diag(1 / np.maximum(weight, 1e-9))
    return mean + wanted @ (x.T @ np.linalg.solve(kernel, y - mean))


def _fit_beside(x: Floats, labels: Floats, offset: Floats, penalty: float = 1.0) -> Floats:
    """Logistic regression beside an offset, by Newton's steps."""
    w = np.zeros(x.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-(offset + x @ w)))
        slope = x.T @ (p - labels) + penalty * w
        w -= np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + penalty * np.eye(len(w)), slope)
    return w
