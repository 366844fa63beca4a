"""Where a title can tell something: gains over the baseline by how often training saw the ad.

Beside the language model's rows stands the cheap bar, title words: ridge from a title's words to
its ad's click rate, weighed beside the baseline's logit on the same validation rows.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.clicks import Clicks
from lib.studies.ad_texts import add_titles, read_ad_texts, segment_gains, title_words
from lib.studies.baseline import load_click_model
from lib.studies.clicks import predict_logits
from lib.studies.llm_ctr import predict_rows, resume_llm_ctr

__all__ = ["BAR", "gains_by_ad", "predict_variant"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BAR = "title words"


def predict_variant(
    variant: str, clicks: Clicks, test: Ints, baseline: Path, rows: Mapping[str, Path],
    backbone: Path | str, texts: Mapping[str, Sequence[Path]], *, max_title_tokens: int,
    device: str = "cpu", report: Callable[..., None] | None = None,
) -> dict[str, Floats]:  # fmt: skip
    """Test logits of the baseline of a variant and of trained models that hear it.  -> (N,) each"""
    found = {"baseline": predict_logits(load_click_model(baseline), clicks, test)}
    for number, (row, folder) in enumerate(rows.items()):
        model, _, titles = resume_llm_ctr(
            folder, {variant: baseline}, backbone, data={variant: clicks}, texts=texts,
            max_title_tokens=max_title_tokens,
        )  # fmt: skip
        found[row] = predict_rows(model.to(device), variant, clicks, test, titles=titles)
        if report is not None:
            report(number + 1, len(rows))
    return found


def gains_by_ad(
    clicks: Clicks, test: Ints, baseline: Path, texts: Sequence[Path],
    logits: Mapping[str, Floats],
) -> pl.DataFrame:  # fmt: skip
    """AUC and paired gain of every row, and of title words, by ads' training rows."""
    ads, valid = read_ad_texts(clicks, *texts), clicks.rows("valid")
    known = (predict_logits(load_click_model(baseline), clicks, valid), logits["baseline"])
    shown = {**logits, BAR: add_titles(ads, title_words(ads.titles), clicks, valid, test, known)}
    if "ceiling" in shown:
        shown["ceiling"] = shown.pop("ceiling")  # it closes the table
    return segment_gains(ads, clicks, test, shown, against="baseline")
