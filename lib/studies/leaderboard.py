"""Systems on the very same rows: what each reaches, which differences are real, who is dominated.

A contest holds one number per judged row and system (a user's NDCG, a row's log loss), so that
every comparison is paired. All intervals of a contest come from the same draws of its rows: they
speak of other users, never of other training runs, whose spread stands in a column of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from lib.evaluate.uncertainty import (
    Interval,
    holm,
    interval_of_draws,
    minimum_detectable_difference,
)

__all__ = ["Contest", "System", "best_row", "compare_pairs", "hold_contest", "judge", "leaderboard",
           "pair_systems", "pareto_front"]  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pairs = Sequence[tuple[str, str]]  # (row, the row it is compared with)
HEAPS = 5_000  # of more rows heaps are drawn; the error of their spread is 1 %
BLOCK = 64  # draws at a time
LEVEL = 0.05
PAIR_SCHEMA: dict[str, type[pl.DataType]] = {
    "data": pl.String, "row": pl.String, "against": pl.String, "gain": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "base": pl.Float64, "points": pl.Float64,
    "points_low": pl.Float64, "points_high": pl.Float64, "detectable": pl.Float64, "n": pl.Int64,
    "seeds": pl.Int64, "p": pl.Float64, "missing": pl.String,
}  # fmt: skip
BOARD_SCHEMA: dict[str, type[pl.DataType]] = {
    "data": pl.String, "row": pl.String, "value": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "n": pl.Int64, "seeds": pl.Int64, "seed_spread": pl.Float64,
    "share": pl.Float64, "share_low": pl.Float64, "share_high": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class System:
    """What one system said of the rows it was judged on."""

    name: str
    source: str  # the node it comes from
    keys: Ints  # (N, K): user and position, or the number of a row
    answers: Floats  # (S, N): ranks or logits, one line a seed


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Values (S, N) of every system on the same N rows, and what resampling makes of their means.

    ``trivial`` knows nothing and ``ceiling`` everything that can be known; the gap lies between.
    """

    data: str
    measure: str
    better: Literal["higher", "lower"]
    keys: Ints
    values: Mapping[str, Floats]
    drawn: Floats  # (draws, R), columns in the order of ``values``
    trivial: str
    ceiling: str | None

    @property
    def rows(self) -> list[str]:
        """The systems, without the ceiling."""
        return [name for name in self.values if name != self.ceiling]

    @property
    def sign(self) -> int:
        return 1 if self.better == "higher" else -1

    def mean(self, name: str) -> float:
        return float(self.values[name].mean())

    def draws_of(self, name: str) -> Floats:
        return self.drawn[:, list(self.values).index(name)]

    @property
    def gap(self) -> float | None:
        """From the trivial row to the ceiling; None where it is unknown or not shown to exist."""
        known = self.ceiling in self.values and self.trivial in self.values
        if not known or self.ceiling is None:
            return None
        size = self.sign * (self.mean(self.ceiling) - self.mean(self.trivial))
        drawn = self.sign * (self.draws_of(self.ceiling) - self.draws_of(self.trivial))
        return size if interval_of_draws(size, drawn, len(self.keys)).low > 0 else None

    def within(self, rows: NDArray[np.bool_], *, seed: int = 0) -> "Contest":
        """The same systems on some of the rows, drawn anew."""
        values = {name: table[:, rows] for name, table in self.values.items()}
        return replace(self, keys=self.keys[rows], values=values,
                       drawn=drawn_means(values, len(self.drawn), seed))  # fmt: skip


def pair_systems(
    systems: Sequence[System],
) -> tuple[Ints, dict[str, Floats], pl.DataFrame]:
    """Only what every system was judged on.  -> keys (N, K), answers (S, N), how many of how many

    >>> def judged(name, *users):
    ...     keys, ranks = np.array(users)[:, None], np.ones((1, len(users)))
    ...     return System(name=name, source="", keys=keys, answers=ranks)
    >>> pair_systems([judged("a", 1, 2, 3), judged("b", 3, 2)])[0].ravel().tolist()
    [2, 3]
    """
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise ValueError(f"systems need names of their own, got {names}")
    if not systems:
        return np.zeros((0, 1), np.int64), {}, pl.DataFrame()
    widths = np.max([system.keys.max(axis=0, initial=0) for system in systems], axis=0) + 1
    packed = [np.ravel_multi_index(tuple(system.keys.T), tuple(widths)) for system in systems]
    for system, codes in zip(systems, packed, strict=True):
        if len(np.unique(codes)) < len(codes):
            raise ValueError(f"{system.name} answers the same row twice; one answer a row")
    common = packed[0]
    for codes in packed[1:]:
        common = np.intersect1d(common, codes, assume_unique=True)
    common = np.sort(common)
    counts = pl.DataFrame([
        {"row": system.name, "from": system.source, "judged": len(system.keys),
         "compared": len(common)} for system in systems
    ])  # fmt: skip
    if not len(common):
        raise ValueError(f"no row was judged by all of {names}: {counts['judged'].to_list()} rows "
                         "each; make them from the same prepared data")  # fmt: skip
    answers = {}
    for system, codes in zip(systems, packed, strict=True):
        order = np.argsort(codes)
        places = order[np.searchsorted(codes, common, sorter=order)]
        answers[system.name] = np.asarray(system.answers[:, places], np.float64)
    keys = np.stack(np.unravel_index(common, tuple(widths)), axis=1).astype(np.int64)
    return keys, answers, counts


def hold_contest(
    data: str, measure: str, keys: Ints, values: Mapping[str, Floats], *, trivial: str,
    ceiling: str | None = "ceiling", better: Literal["higher", "lower"] = "higher", draws: int,
    seed: int = 0,
) -> Contest:  # fmt: skip
    """A contest from values per row, (S, N) or (N,) of each system."""
    tables = {name: np.atleast_2d(np.asarray(table, np.float64)) for name, table in values.items()}
    wrong = {name: table.shape for name, table in tables.items() if table.shape[1] != len(keys)}
    if wrong:
        raise ValueError(f"{data}: expected {len(keys)} values of each system, got {wrong}")
    return Contest(
        data=data, measure=measure, better=better, keys=keys, values=tables, trivial=trivial,
        ceiling=ceiling if ceiling in tables else None, drawn=drawn_means(tables, draws, seed),
    )  # fmt: skip


def drawn_means(values: Mapping[str, Floats], draws: int, seed: int) -> Floats:
    """Means of every system on rows drawn with replacement, the same rows for all.  -> (draws, R)

    Of many rows, equal heaps dealt at random are drawn: the mean keeps its variance.
    """
    if not values:
        return np.zeros((draws, 0))
    generator = np.random.default_rng(seed)
    table = np.stack([each.mean(axis=0) for each in values.values()])  # (R, N)
    n = table.shape[1]
    sizes = np.ones(n)
    if n > HEAPS:
        heap, n = generator.permutation(n) % HEAPS, HEAPS
        table = np.stack([np.bincount(heap, weights=row) for row in table])
        sizes = np.bincount(heap).astype(np.float64)
    found = np.empty((draws, len(table)))
    for start in range(0, draws, BLOCK):
        drawn = [np.bincount(generator.integers(0, n, n), minlength=n)
                 for _ in range(min(BLOCK, draws - start))]  # fmt: skip
        counts = np.stack(drawn).astype(np.float64)  # products of integers are slow
        found[start : start + BLOCK] = (counts @ table.T) / (counts @ sizes)[:, None]
    return found


def leaderboard(contest: Contest) -> pl.DataFrame:
    """One line a system, best first: value, seeds, and the share of the gap that it closes."""
    lines = []
    gap, n = contest.gap, len(contest.keys)
    for name, table in contest.values.items():
        own = interval_of_draws(contest.mean(name), contest.draws_of(name), n)
        spread = float(table.mean(axis=1).std(ddof=1)) if len(table) > 1 else None
        line = {"data": contest.data, "row": name, "value": own.value, "low": own.low,
                "high": own.high, "n": n, "seeds": len(table), "seed_spread": spread}  # fmt: skip
        if gap is not None:
            share = share_of_gap(contest, name)
            line |= {"share": share.value, "share_low": share.low, "share_high": share.high}
        lines.append(line)
    return pl.DataFrame(lines, schema=BOARD_SCHEMA).sort(
        "value", descending=contest.better == "higher", maintain_order=True
    )


def share_of_gap(contest: Contest, name: str) -> Interval:
    """(value − trivial) / (ceiling − trivial); value, trivial and ceiling on the same draws."""
    assert contest.ceiling is not None
    low, high = contest.mean(contest.trivial), contest.mean(contest.ceiling)
    drawn = [contest.draws_of(row) for row in (name, contest.trivial, contest.ceiling)]
    possible = drawn[2] - drawn[1]
    known = np.abs(possible) > 1e-12  # a draw without any gap says nothing of a share of it
    shares = (drawn[0] - drawn[1])[known] / possible[known]
    return interval_of_draws((contest.mean(name) - low) / (high - low), shares, len(contest.keys))


def compare_pairs(contest: Contest, pairs: Pairs) -> pl.DataFrame:
    """Each pair's gain (positive: the first is better), paired by row; ``judge`` makes it a table.

    ``base`` is the second's value, ``points`` the gain as a share of the gap, ``detectable`` the
    least true gain that these rows would show four times in five. A row that is not there leaves a
    line that says so.
    """
    lines, gap, n = [], contest.gap, len(contest.keys)
    for row, against in pairs:
        line: dict[str, object] = {"data": contest.data, "row": row, "against": against}
        absent = [name for name in (row, against) if name not in contest.values]
        if absent:
            lines.append(line | {"missing": f"no result of {' and '.join(absent)}"})
            continue
        ours, theirs = contest.values[row], contest.values[against]
        drawn = contest.sign * (contest.draws_of(row) - contest.draws_of(against))
        value = contest.sign * (contest.mean(row) - contest.mean(against))
        gain = interval_of_draws(value, drawn, n)
        line |= {"gain": gain.value, "low": gain.low, "high": gain.high, "p": gain.p_value, "n": n,
                 "base": abs(contest.mean(against)), "seeds": min(len(ours), len(theirs)),
                 "detectable": detectable_gain(ours, theirs)}  # fmt: skip
        if gap is not None:  # the gap counts as known: this one gap is asked about
            part = gain.scaled(1 / gap)
            line |= {"points": part.value, "points_low": part.low, "points_high": part.high}
        lines.append(line)
    return pl.DataFrame(lines, schema=PAIR_SCHEMA)


def detectable_gain(ours: Floats, theirs: Floats) -> float | None:
    """The least true difference that as many rows would show four times in five."""
    if ours.shape[1] < 2:
        return None
    return minimum_detectable_difference(ours.mean(axis=0), theirs.mean(axis=0))


def judge(pairs: pl.DataFrame, *, draws: int) -> pl.DataFrame:
    """Holm's correction over the whole table, and a verdict for each line of it."""
    tests = int(pairs["p"].is_not_null().sum())
    if tests and tests * 2 / (draws + 1) >= LEVEL:
        needed = round(2 * tests / LEVEL) + 1
        raise ValueError(f"{draws=} show no p-value below {2 / (draws + 1):.1g}: a table of "
                         f"{tests} differences needs {needed} or more")  # fmt: skip
    adjusted = holm(pairs["p"].fill_null(float("nan")).to_numpy())
    verdicts = []
    for line, p in zip(pairs.iter_rows(named=True), adjusted, strict=True):
        if line["missing"]:
            verdicts.append("not measured")
        elif p < LEVEL:
            verdicts.append("better" if line["gain"] > 0 else "worse")
        else:
            verdicts.append("no difference shown")
    return pairs.with_columns(
        p_holm=pl.Series(adjusted, dtype=pl.Float64).fill_nan(None),
        verdict=pl.Series(verdicts, dtype=pl.String),
    )


def best_row(contest: Contest) -> str | None:
    """The system with the best mean; the ceiling takes no part."""
    return max(contest.rows, key=lambda name: contest.sign * contest.mean(name), default=None)


def pareto_front(costs: ArrayLike, gains: ArrayLike) -> NDArray[np.bool_]:
    """Whom nobody beats on both: no other is as cheap and as good, and better in one.  (N,), (N,)

    What has no cost or no gain (NaN) is not on the front.

    >>> pareto_front([1.0, 2.0, 2.0], [0.5, 0.5, 0.9]).tolist()
    [True, False, True]
    """
    cost, gain = np.asarray(costs, np.float64), np.asarray(gains, np.float64)
    if cost.shape != gain.shape:
        raise ValueError(f"{cost.shape} costs and {gain.shape} gains; one of each a system")
    at_most = cost[None, :] <= cost[:, None]  # [i, j]: j is as cheap as i
    at_least = gain[None, :] >= gain[:, None]
    strictly = (cost[None, :] < cost[:, None]) | (gain[None, :] > gain[:, None])
    dominated = (at_most & at_least & strictly).any(axis=1)
    return ~dominated & ~np.isnan(cost) & ~np.isnan(gain)
