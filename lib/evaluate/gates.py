"""A gate is data: what must change, by how much, against what. The interval decides, not the mean.

A rule joins alternatives by "or": ``average_precision +0.010 or weighted_log_loss -2%`` asks for
a rise by .010 or a fall by 2 % of the baseline. An alternative is met when its whole interval lies
on the far side of the threshold, missed when all of it lies on the near side; in between the data
cannot tell, and the answer says so instead of guessing.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from lib.evaluate.checks import as_values, require_same_length
from lib.evaluate.uncertainty import Interval, paired_bootstrap

__all__ = ["Alternative", "Decision", "Evidence", "Gate", "decide", "decide_on", "parse_rule"]

Value = TypeVar("Value")
Answer = Literal["adopted", "not adopted", "not decidable"]
ALTERNATIVE = re.compile(
    r"(?P<metric>[A-Za-z][\w@.]*)\s*(?P<sign>[+-])\s*(?P<size>\d*\.?\d+(?:[eE]-?\d+)?)\s*(?P<percent>%?)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """One way through the gate: ``metric`` must move in its better direction by ``threshold``."""

    metric: str
    better: Literal["higher", "lower"]
    threshold: float  # absolute, or a share of the baseline
    relative: bool

    def __post_init__(self) -> None:
        if not (np.isfinite(self.threshold) and self.threshold >= 0):
            raise ValueError(f"threshold={self.threshold} of {self.metric!r}; expected 0 or more")
        if self.better not in ("higher", "lower"):
            raise ValueError(f"better={self.better!r} of {self.metric!r}; expected higher or lower")

    def __str__(self) -> str:
        sign = "+" if self.better == "higher" else "-"
        size = f"{100 * self.threshold:g}%" if self.relative else f"{self.threshold:g}"
        return f"{self.metric} {sign}{size}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a candidate must show against a named baseline, in one of several ways."""

    name: str
    baseline: str
    alternatives: tuple[Alternative, ...]

    def __post_init__(self) -> None:
        if not self.alternatives:
            raise ValueError(f"gate {self.name!r} has no alternative, so nothing could pass it")

    @property
    def rule(self) -> str:
        """The rule as ``parse_rule`` reads it."""
        return " or ".join(map(str, self.alternatives))


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """The baseline's value and the interval of candidate − baseline for one metric."""

    baseline: float
    difference: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The answer, and for each alternative its own with the interval it rests on.

    ``shown`` is the interval in the unit of the threshold: absolute, or a share of the baseline.
    """

    gate: str
    answer: Answer
    rule: str
    answers: tuple[Answer, ...]
    shown: tuple[Interval, ...]

    def to_rows(self) -> list[dict[str, str | float]]:
        """One row an alternative, for a table."""
        parts = self.rule.split(" or ")
        return [
            {"gate": self.gate, "alternative": rule, "answer": answer, **asdict(interval)}
            for rule, answer, interval in zip(parts, self.answers, self.shown, strict=True)
        ]


def parse_rule(rule: str) -> tuple[Alternative, ...]:
    """Alternatives from text; the sign is the better direction.

    >>> [str(part) for part in parse_rule("average_precision +.010 or weighted_log_loss -2%")]
    ['average_precision +0.01', 'weighted_log_loss -2%']
    """
    alternatives = []
    for part in re.split(r"\s+or\s+", rule.strip()):
        match = ALTERNATIVE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"cannot read {part!r}; expected 'metric +0.01' or 'metric -2%'")
        relative = match["percent"] == "%"
        alternatives.append(
            Alternative(
                metric=match["metric"],
                better="higher" if match["sign"] == "+" else "lower",
                threshold=float(match["size"]) / (100 if relative else 1),
                relative=relative,
            )
        )
    return tuple(alternatives)


def decide(
    gate: Gate,
    baseline: Mapping[str, ArrayLike],
    candidate: Mapping[str, ArrayLike],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Decision:
    """Decide from values per user or row, whose means are the metrics.  {metric: (N,)} twice

    For a metric that is no mean (AUC, AP, Score) give ``decide_on`` its own interval.
    """
    evidence = {}
    for metric in {part.metric for part in gate.alternatives}:
        old = as_values(f"baseline {metric}", _get(baseline, metric, gate))
        new = as_values(f"candidate {metric}", _get(candidate, metric, gate))
        require_same_length(baseline=old, candidate=new)
        difference = paired_bootstrap(new, old, draws, seed)
        evidence[metric] = Evidence(baseline=float(old.mean()), difference=difference)
    return decide_on(gate, evidence)


def decide_on(gate: Gate, evidence: Mapping[str, Evidence]) -> Decision:
    """Decide from intervals that are known already.

    A relative interval is that of the difference over the baseline's value, which counts as
    known: the question is whether *this* baseline is beaten by so much.
    """
    shown, answers = [], []
    for part in gate.alternatives:
        known = _get(evidence, part.metric, gate)
        interval = known.difference
        if part.relative:
            if not known.baseline:
                raise ValueError(f"{part.metric!r} of the baseline is 0: no share of it is defined")
            interval = interval.scaled(1 / abs(known.baseline))
        shown.append(interval)
        answers.append(_answer(part, interval))
    met, all_missed = "adopted" in answers, set(answers) == {"not adopted"}
    answer: Answer = "adopted" if met else "not adopted" if all_missed else "not decidable"
    return Decision(
        gate=gate.name, answer=answer, rule=gate.rule, answers=tuple(answers), shown=tuple(shown)
    )


def _answer(part: Alternative, interval: Interval) -> Answer:
    gain = interval if part.better == "higher" else interval.scaled(-1)
    # a threshold of 0 asks for "better": an interval that ends at exactly 0 has not shown it
    if gain.low > part.threshold or (part.threshold > 0 and gain.low == part.threshold):
        return "adopted"
    return "not adopted" if gain.high < part.threshold or gain.high <= 0 else "not decidable"


def _get(values: Mapping[str, Value], metric: str, gate: Gate) -> Value:
    if metric not in values:
        raise KeyError(f"gate {gate.name!r} asks for {metric!r}; only {sorted(values)} were given")
    return values[metric]
