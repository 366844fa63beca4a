"""Rows of LLM-CTR beside their baseline: one table, one verdict, and what the model listens to."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from lib.data.clicks import Clicks
from lib.evaluate import calibration
from lib.evaluate import clicks as measures
from lib.evaluate.delong import auc_difference
from lib.evaluate.uncertainty import holm, paired_bootstrap
from lib.language.backbone import Backbone
from lib.language.soft_tokens import answer_ids
from lib.models.llm_ctr import LLMCTR
from lib.studies.clicks import ClickSource, predict_logits, sigmoid
from lib.studies.llm_ctr import predict_rows
from lib.studies.title_reading import TitleTokens

__all__ = [
    "SCENARIOS",
    "answers_at_all",
    "compare_with",
    "cost_of",
    "field_worth",
    "plan_table",
    "projector_outputs",
    "scenario",
    "sensitivity",
    "with_random_projector",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SCENARIOS = {
    "A": "scenario A: better than the baseline",
    "B": "scenario B: as good as the baseline, a loss of the margin is excluded",
    "C": "scenario C: worse than the baseline",
    "not decidable": "no scenario yet: the rows are too few to tell",
}


def compare_with(
    baseline: str, labels: npt.NDArray[np.int8], logits: Mapping[str, Floats], *, threshold: float,
    draws: int,
) -> pl.DataFrame:  # fmt: skip
    """One line a row: AUC (DeLong), log loss (paired), accuracy, entropy, calibration."""
    lines = []
    for row, found in logits.items():
        p = sigmoid(found)
        line: dict[str, object] = {
            "row": row,
            "auc": measures.auc(labels, found),
            "log_loss": measures.log_loss(labels, p),
            "accuracy": measures.accuracy(labels, p, threshold),
            "normalised_entropy": measures.normalised_entropy(labels, p),
            "calibration_error": calibration.ece(labels, p),
            "predicted_over_observed": calibration.predicted_over_observed(labels, p),
        }
        if row != baseline:
            gap = auc_difference(labels, found, logits[baseline])
            loss = paired_bootstrap(
                measures.row_log_loss(labels, p),
                measures.row_log_loss(labels, sigmoid(logits[baseline])),
                draws,
            )
            line |= {"auc_gain": gap.value, "auc_gain_low": gap.low, "auc_gain_high": gap.high,
                     "auc_p": gap.p_value, "log_loss_change": loss.value,
                     "log_loss_low": loss.low, "log_loss_high": loss.high}  # fmt: skip
        lines.append(line)
    frame = pl.DataFrame(lines, infer_schema_length=None)
    if "auc_p" not in frame.columns:
        return frame
    p_values = frame["auc_p"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return frame.with_columns(auc_p=pl.Series(holm(p_values)).fill_nan(None))


def cost_of(
    row: str, model: torch.nn.Module, *, seconds: float | None = None, n_rows: int = 0
) -> dict[str, str | float | None]:
    """Weights of a row and milliseconds of a prediction, as one line of a table of costs.

    A model without a weight to train was trained whole, elsewhere.

    >>> cost_of("a", torch.nn.Linear(2, 1), seconds=0.5, n_rows=100)["milliseconds a row"]
    5.0
    """
    held = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "row": row,
        "parameters": float(trained or held),
        "numbers held": float(held),
        "milliseconds a row": None if seconds is None else 1000 * seconds / n_rows,
    }


def scenario(line: Mapping[str, float], *, margin: float = 0.001) -> str:
    """A: better; B: no worse than the margin; C: worse; else the data cannot tell.

    >>> scenario({"auc_gain_low": -0.0005, "auc_gain_high": 0.002})
    'B'
    """
    low, high = line["auc_gain_low"], line["auc_gain_high"]
    if low > 0:
        return "A"
    if low > -margin:
        return "B"
    return "C" if high < 0 else "not decidable"


def plan_table(frame: pl.DataFrame, baseline: str, row: str) -> pl.DataFrame:
    """The plan's form: metric, baseline, LLM-CTR, improvement (positive is better)."""
    ours, theirs = (frame.filter(row=name).row(0, named=True) for name in (row, baseline))
    lower = {"log_loss", "normalised_entropy", "calibration_error"}
    lines = []
    for name in ("auc", "log_loss", "accuracy", "normalised_entropy", "calibration_error"):
        gain = ours[name] - theirs[name]
        lines.append({"metric": name, "baseline": theirs[name], "LLM-CTR": ours[name],
                      "improvement": -gain if name in lower else gain})  # fmt: skip
    return pl.DataFrame(lines)


def field_worth(
    model: LLMCTR, variant: str, clicks: Clicks, rows: Ints, *, chunk: int = 512
) -> pl.DataFrame:
    """AUC lost when a field is silent: its soft token left out, its id missing in the baseline."""
    if model.pool is not None or model.config.reads_title:
        raise ValueError("this row has no token per field that could be left out; name one "
                         "trained with n_tokens: 0 and without titles (`heard` in 43)")  # fmt: skip
    labels = np.asarray(clicks.label[rows])
    batch = ClickSource(
        clicks, rows, batch=len(rows), seed=0, shuffle=False, device=place_of(model)
    ).take(rows)
    plain = {"categorical": batch["categorical"], "numeric": batch["numeric"],
             "missing": batch["missing"], "variant": variant}  # fmt: skip
    baseline = model.baselines[variant]
    first = 1 if model.config.form == "residual" else 0  # the confidence token comes first

    def judge(given: dict[str, object]) -> float:
        parts = []
        for i in range(0, len(rows), chunk):
            cut = {
                k: v[i : i + chunk] if isinstance(v, torch.Tensor) else v for k, v in given.items()
            }
            parts.append(model(cut))
        return measures.auc(labels, torch.cat(parts).double().cpu().numpy())

    with torch.no_grad():
        whole = judge(plain)
        own = measures.auc(labels, predict_logits(baseline, clicks, rows, device=place_of(model)))
        lines = []
        for place, name in enumerate(clicks.fields):
            silent = batch["categorical"].clone()
            silent[:, place] = int(clicks.field_offsets[place])  # "missing" of this field
            lost = own - measures.auc(
                labels, baseline({**batch, "categorical": silent}).cpu().numpy()
            )
            heard = whole - judge({**plain, "without": str(place + first)})
            lines.append({"field": name, "language model": heard, "baseline": lost})
    return pl.DataFrame(lines).sort("language model", descending=True)


def sensitivity(
    model: LLMCTR,
    variant: str,
    clicks: Clicks,
    rows: Ints,
    backbone: Backbone,
    prompts: Sequence[str],
    answers: Sequence[Sequence[str]],
    *,
    titles: Mapping[str, TitleTokens] | None = None,
) -> pl.DataFrame:
    """AUC of the same weights under other prompts and other pairs of answers."""
    labels = np.asarray(clicks.label[rows])
    asked, read = model.prompt, model.answers
    lines = []
    for prompt in prompts:
        model.ask(backbone.tokenizer.encode(prompt, add_special_tokens=False), read)
        auc = measures.auc(labels, predict_rows(model, variant, clicks, rows, titles=titles))
        lines.append({"changed": "prompt", "to": prompt, "auc": auc})
    for no, yes in answers:
        line: dict[str, object] = {"changed": "answers", "to": f"{no!r} / {yes!r}", "auc": None}
        try:
            model.ask(asked, answer_ids(backbone.tokenizer, no, yes))
            line["auc"] = measures.auc(
                labels, predict_rows(model, variant, clicks, rows, titles=titles)
            )
        except ValueError:
            line["to"] = f"{no!r} / {yes!r}: not one token each"
        lines.append(line)
    model.ask(asked, read)
    return pl.DataFrame(lines, infer_schema_length=None)


@torch.no_grad()
def answers_at_all(
    model: LLMCTR,
    variant: str,
    clicks: Clicks,
    rows: Ints,
    *,
    titles: Mapping[str, TitleTokens] | None = None,
) -> float:
    """Mean share of probability on the two answers among all tokens."""
    source = ClickSource(
        clicks, rows, batch=len(rows), seed=0, shuffle=False, device=place_of(model)
    )
    batch: dict[str, Any] = {**source.take(rows), "variant": variant}
    if titles and variant in titles:
        batch = titles[variant].add(batch, rows)
    return float(model.answer_mass(batch).mean())


def with_random_projector(model: LLMCTR, seed: int) -> LLMCTR:
    """The same model with a projector that has learnt nothing: what "better than random" means."""
    fresh = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in fresh.projector.named_parameters():
        if weight.dim() > 1 and "slots" not in name:
            torch.nn.init.kaiming_uniform_(weight, generator=generator)
    return fresh.eval()


@torch.no_grad()
def projector_outputs(
    model: LLMCTR, variant: str, clicks: Clicks, rows: Ints
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.str_], npt.NDArray[np.str_]]:
    """Soft tokens of some rows, with the name of their slot and whether the row was clicked."""
    batch = ClickSource(
        clicks, rows, batch=len(rows), seed=0, shuffle=False, device=place_of(model)
    ).take(rows)
    tokens = model.soft_tokens({**batch, "variant": variant}).cpu().numpy()  # (B, S, d)
    names = [*clicks.fields, *clicks.numeric_names, *clicks.missing_names]
    slots = names if model.pool is None else [f"pooled {i + 1}" for i in range(model.n_soft)]
    if tokens.shape[1] > len(slots):
        slots = ["baseline's logit", *slots]
    clicked = np.where(np.asarray(clicks.label[rows]) > 0, "click", "no click")
    return (
        tokens.reshape(-1, tokens.shape[-1]),
        np.tile(np.array(slots), len(rows)),
        np.repeat(clicked, tokens.shape[1]),
    )


def place_of(model: torch.nn.Module) -> str:
    """The device that a model's weights are on."""
    return str(next(model.parameters()).device)
