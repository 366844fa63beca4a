"""The ladder as a table: each rung's figures, cost, gate, decision and the reason for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.evaluate.clicks import row_log_loss
from lib.evaluate.uncertainty import interval_of_draws
from lib.studies.clicks import sigmoid
from lib.studies.judging import Judged, part_of
from lib.studies.rungs import Rung

__all__ = ["ladder_table", "share_of_the_way"]

Floats = npt.NDArray[np.float64]
START = "first rung: nothing to beat"


def ladder_table(
    opened: Mapping[str, tuple[Rung, Mapping[str, Any]]], judged: Sequence[Judged]
) -> pl.DataFrame:
    """One line per rung, in the order of the climb."""
    found = {j.rung: j for j in judged if j.part == "out of fold" and j.segment == "all"}
    later = {j.rung: j for j in judged if j.part == "hold-out" and j.segment == "all"}
    rows = []
    for rung, decisions in opened.values():
        own, holdout = found[rung.name], later.get(rung.name)
        asked, decision, reason = decide_line(decisions)
        score, precision = own.intervals["score"], own.intervals["average_precision"]
        rows.append({
            "rung": rung.name, "decision": decision, "score": score.value,
            "score low": score.low, "score high": score.high, "AP": precision.value,
            "AP low": precision.low, "AP high": precision.high,
            "WLL": own.values["weighted_log_loss"],
            "log loss": own.values["log_loss"], "AUC": own.values["auc"],
            "hold-out score": None if holdout is None else holdout.values["score"],
            "seconds": rung.seconds, "parameters": rung.parameters, "gate": asked,
            "reason": reason,
        })  # fmt: skip
    return pl.DataFrame(rows)


def decide_line(decisions: Mapping[str, Any]) -> tuple[str, str, str]:
    """What was asked, the answer and why, of a rung's last gate out of fold.

    A rung may be asked several questions (two towers: recall and precision; DARE: two other rungs
    and its own variant). The least favourable answer stands in front, the others behind the reason.
    """
    asked = [name for name in decisions if not name.endswith("hold-out")]
    if not asked:
        return "", "start", START
    order = ("not adopted", "not decidable", "adopted")
    name = min(asked, key=lambda each: order.index(decisions[each]["answer"]))
    told = decisions[name]
    reasons = [
        f"{rule}: {interval['value']:+.4f} [{interval['low']:+.4f}, {interval['high']:+.4f}]"
        for rule, interval in zip(told["rule"].split(" or "), told["shown"], strict=True)
    ]
    others = [f"{asked_of(each)}: {decisions[each]['answer']}" for each in asked if each != name]
    also = [f"asked as well: {', '.join(others)}"] if others else []
    return asked_of(name), told["answer"], "; ".join(reasons + also)


def asked_of(name: str) -> str:
    """A question without its rows.

    >>> asked_of("DIN against DCNv2, out of fold")
    'DIN against DCNv2'
    """
    return name.removesuffix(", out of fold")


def share_of_the_way(
    rungs: Sequence[Rung], known: Mapping[str, Floats], *, draws: int, seed: int
) -> pl.DataFrame:
    """(constant − rung) / (constant − ceiling) in log loss; ``known``: true probabilities of each
    set of rows. Rows are drawn with replacement, the same ones for rung, constant and ceiling."""
    rows = []
    for part, truth in known.items():
        n, gains = len(truth), []  # of each rung: what it gained, and what could be gained
        for rung in rungs:
            own = part_of(rung, part)
            constant = row_log_loss(own.labels, np.full(n, rung.rate))
            gains.append([constant - row_log_loss(own.labels, p)
                          for p in (sigmoid(own.logits), truth)])  # fmt: skip
        table = np.array(gains)  # (R, 2, N)
        sums = np.empty((draws, len(rungs), 2))
        for draw, child in enumerate(np.random.SeedSequence(seed).spawn(draws)):
            drawn = np.random.default_rng(child).integers(0, n, n)
            sums[draw] = table @ np.bincount(drawn, minlength=n).astype(np.float64)
        for number, rung in enumerate(rungs):
            value = float(table[number, 0].mean() / table[number, 1].mean())
            interval = interval_of_draws(value, sums[:, number, 0] / sums[:, number, 1], n)
            rows.append({"rung": rung.name, "rows of": part, "n": n, "share": value,
                         "low": interval.low, "high": interval.high})  # fmt: skip
    return pl.DataFrame(
        rows,
        schema={"rung": pl.String, "rows of": pl.String, "n": pl.Int64, "share": pl.Float64,
                "low": pl.Float64, "high": pl.Float64},
    )  # fmt: skip
