"""How a rung is judged and a gate is asked: the same measures, rows and draws for every rung."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import polars as pl

from lib.evaluate.calibration import reliability_table
from lib.evaluate.checks import Floats
from lib.evaluate.clicks import normalised_entropy
from lib.evaluate.delong import auc_difference, auc_interval
from lib.evaluate.gates import Decision, Evidence, Gate, decide_on, parse_rule
from lib.evaluate.resampled import Resampled, compare_clicks, interval_of, pr_auc, resample_clicks
from lib.evaluate.uncertainty import Interval
from lib.studies.clicks import sigmoid
from lib.studies.rungs import Part, Rung

__all__ = ["PARTS", "Judged", "ask_gate", "gate_table", "judge_rungs", "judged_table", "part_of",
           "reliability_curve", "tell_answers"]  # fmt: skip

PARTS = ("out of fold", "hold-out")
PartName = Literal["out of fold", "hold-out"]
LOWER = ("log_loss", "weighted_log_loss", "normalised_entropy")
RESAMPLED = ("average_precision", "weighted_log_loss", "score", "log_loss")


@dataclass(frozen=True, slots=True)
class Judged:
    """All measures of one rung on one set of rows; those without an interval have none."""

    rung: str
    part: str
    segment: str
    n: int
    clicks: int
    values: dict[str, float]
    intervals: dict[str, Interval]

    def record(self) -> dict[str, float | str | int]:
        """One line of a table."""
        low_high = self.intervals["average_precision"]
        return {
            "rung": self.rung, "rows of": self.part, "segment": self.segment, "n": self.n,
            "clicks": self.clicks, **self.values, "AP low": low_high.low, "AP high": low_high.high,
        }  # fmt: skip

    def metrics(self) -> Iterator[dict[str, object]]:
        """Each measure as the arguments of ``run.metric``."""
        for name, value in self.values.items():
            interval = self.intervals.get(name)
            yield {
                "name": name, "value": value, "row": f"{self.rung}, {self.part}",
                "segment": self.segment, "n": self.n,
                "ci": None if interval is None else (interval.low, interval.high),
                "better": "lower" if name in LOWER else "higher",
            }  # fmt: skip


def part_of(rung: Rung, part: str) -> Part:
    if part not in PARTS:
        raise ValueError(f"{part=}; expected one of {PARTS}")
    return rung.oof if part == "out of fold" else rung.holdout


def judge_rungs(rungs: Sequence[Rung], *, draws: int, seed: int) -> list[Judged]:
    """Every rung, out of fold and on the hold-out, all rows and each segment with enough clicks."""
    return [
        _judge(rung, name, segment, draws, seed)
        for rung in rungs
        for name in PARTS
        for segment in rung.segments
        if _is_judgeable(part_of(rung, name).within(segment))
    ]


def judged_table(judged: Sequence[Judged], *, segment: str | None = None) -> pl.DataFrame:
    """One line per rung and set of rows; of one segment where it is named."""
    return pl.DataFrame([j.record() for j in judged if segment in (None, j.segment)])


def ask_gate(
    name: str,
    rule: str,
    baseline: Rung,
    candidate: Rung,
    *,
    part: PartName = "out of fold",
    draws: int,
    seed: int,
) -> Decision:
    """Ask a gate on paired rows.  A metric may name a segment: ``average_precision.new``.

    A segment with too few clicks for an interval cannot decide: its interval is everything.
    """
    gate = Gate(name=name, baseline=baseline.name, alternatives=parse_rule(rule))
    evidence = {}
    for alternative in gate.alternatives:
        metric, _, segment = alternative.metric.partition(".")
        old, new = (part_of(rung, part).within(segment or "all") for rung in (baseline, candidate))
        if not (np.array_equal(old.rows, new.rows) and np.array_equal(old.labels, new.labels)):
            raise ValueError(
                f"{baseline.name} ({len(old.rows)} rows) and {candidate.name} ({len(new.rows)}) "
                f"judge different rows {part}; train both on the same prepared dataset"
            )
        evidence[alternative.metric] = _evidence(
            metric, old, new, baseline, candidate, draws=draws, seed=seed
        )
    return decide_on(gate, evidence)


def gate_table(decisions: Mapping[str, Decision]) -> pl.DataFrame:
    """One line per alternative of each gate, with the interval it rests on."""
    return pl.DataFrame(
        [
            {"asked of": asked, "decision": decision.answer,
             **{name: value for name, value in row.items() if name != "gate"}}
            for asked, decision in decisions.items()
            for row in decision.to_rows()
        ]
    )  # fmt: skip


def tell_answers(answers: Mapping[str, str]) -> str:
    """Questions with their answers as a sentence for each answer.

    >>> tell_answers({"C against A": "adopted", "C against B": "not decidable"})
    'Adopted: C against A. Not decidable, as the interval straddles the threshold: C against B'
    """
    asked: dict[str, list[str]] = {}
    for question, answer in answers.items():
        asked.setdefault(answer, []).append(question)
    why = {"not decidable": ", as the interval straddles the threshold"}
    return ". ".join(
        f"{answer.capitalize()}{why.get(answer, '')}: {'; '.join(questions)}"
        for answer, questions in asked.items()
    )


def reliability_curve(part: Part, bins: int = 10) -> tuple[Floats, Floats, Floats]:
    """Predicted and observed rate and rows per bin of equal mass, for ``plot_reliability``.

    Bins without a click are left out: they have no place on a logarithmic axis.
    """
    table = reliability_table(part.labels, sigmoid(part.logits), bins)
    kept = table["observed"] > 0
    return table["predicted"][kept], table["observed"][kept], table["rows"][kept]


def _judge(rung: Rung, part: str, segment: str, draws: int, seed: int) -> Judged:
    rows = part_of(rung, part).within(segment)
    p_true, n = sigmoid(rows.logits), len(rows.rows)
    resampled = _resample(rung, rows, draws, seed)
    values = {name: resampled[name][0] for name in RESAMPLED}
    area = auc_interval(rows.labels, rows.logits)
    values |= {"auc": area.value, "pr_auc": pr_auc(rows.labels, rows.logits)}
    values |= {"normalised_entropy": normalised_entropy(rows.labels, p_true)}
    intervals = {name: interval_of(resampled, name, n) for name in RESAMPLED} | {"auc": area}
    return Judged(rung.name, part, segment, n, int((rows.labels > 0).sum()), values, intervals)


def _evidence(
    metric: str, old: Part, new: Part, baseline: Rung, candidate: Rung, *, draws: int, seed: int
) -> Evidence:
    if not _is_judgeable(old):
        nothing = Interval(value=0.0, low=-1.0, high=1.0, p_value=1.0, n=len(old.rows))
        return Evidence(baseline=1.0, difference=nothing)
    if metric == "auc":
        area = auc_interval(old.labels, old.logits).value
        return Evidence(
            baseline=area, difference=auc_difference(old.labels, new.logits, old.logits)
        )
    if metric not in RESAMPLED:
        raise ValueError(f"gate metric {metric!r}; expected auc or one of {RESAMPLED}")
    before = _resample(baseline, old, draws, seed)
    after = _resample(candidate, new, draws, seed)
    difference = compare_clicks(after, before, metric, len(old.rows))
    return Evidence(baseline=before[metric][0], difference=difference)


def _resample(rung: Rung, rows: Part, draws: int, seed: int) -> Resampled:
    key = rows.labels.tobytes(), rows.logits.tobytes(), rung.rate
    return _resampled(*key, draws, seed)


@lru_cache(maxsize=64)  # a notebook asks for the same rows several times
def _resampled(labels: bytes, logits: bytes, rate: float, draws: int, seed: int) -> Resampled:
    clicked, said = np.frombuffer(labels, np.int8), np.frombuffer(logits, np.float64)
    shift = float(np.log((1 - rate) / rate))
    return resample_clicks(clicked, sigmoid(said), sigmoid(said + shift), draws=draws, seed=seed)


def _is_judgeable(part: Part) -> bool:
    """At least five of each class: below that most draws miss one."""
    positive = int((part.labels > 0).sum())
    return positive >= 5 and len(part.labels) - positive >= 5
