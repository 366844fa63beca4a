"""How sure a number is: intervals, tests of differences, and the smallest difference to be seen.

Two models are compared on the same users or rows, so everything here is *paired*: the value per
user of one model minus that of the other. All draws are seeded and independent of the number of
threads.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from lib.evaluate.checks import Floats, as_values, require_same_length

__all__ = [
    "Interval", "Spread", "bootstrap_mean", "holm", "interval_of_draws",
    "minimum_detectable_difference", "paired_bootstrap", "paired_permutation", "split_variance",
]  # fmt: skip

BLOCK_ROWS = 1_000_000  # rows drawn at a time by one thread
MOST_ROWS = 200_000  # drawn one by one; more are dealt into heaps, and heaps are drawn
HEAPS = 20_000  # their spread has an error of 0.5 %, less than that of 10,000 draws


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A value, its interval, the two-sided p-value of "it is 0", and the number of units."""

    value: float
    low: float
    high: float
    p_value: float
    n: int

    def scaled(self, factor: float) -> "Interval":
        """The interval of ``factor`` times the value, for instance in percent of a baseline."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Interval(
            value=self.value * factor, low=low, high=high, p_value=self.p_value, n=self.n
        )


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, draws: int = 10_000, seed: int = 0, *,
    groups: ArrayLike | None = None, level: float = 0.95,
) -> Interval:  # fmt: skip
    """Mean of a − b over users with its percentile interval.  (N,), (N,) -> Interval

    ``groups`` draws whole groups (users, days) instead of rows; the value is then the mean over
    rows of the drawn groups.

    >>> result = paired_bootstrap([1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0], draws=2000)
    >>> result.value, result.low, result.high
    (0.5, 0.0, 1.0)
    """
    left, right = as_values("a", a), as_values("b", b)
    require_same_length(a=left, b=right)
    with np.errstate(invalid="ignore"):
        difference = left - right
    return bootstrap_mean(difference, draws, seed, groups=groups, level=level)


def bootstrap_mean(
    a: ArrayLike, draws: int = 10_000, seed: int = 0, *, groups: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:  # fmt: skip
    """Mean over users with its percentile bootstrap interval.  (N,) -> Interval"""
    values = as_values("values", a)
    _require_finite_sample(values, draws)
    if groups is None:
        means = _drawn_sums(values, draws, seed) / len(values)
        return interval_of_draws(float(values.mean()), means, len(values), level)
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    require_same_length(values=values, groups=inverse)
    totals = np.bincount(inverse, weights=values).astype(np.float64)
    sizes = np.bincount(inverse).astype(np.float64)
    return interval_of_draws(
        float(values.mean()), _drawn_sums(totals, draws, seed, sizes), len(sizes), level
    )


def paired_permutation(a: ArrayLike, b: ArrayLike, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of mean(a − b) = 0 when the two models may be swapped user by user.

    >>> paired_permutation([1.0] * 12, [0.0] * 12, draws=1000) < 0.01
    True
    """
    left, right = as_values("a", a), as_values("b", b)
    require_same_length(a=left, b=right)
    with np.errstate(invalid="ignore"):
        difference = left - right
    _require_finite_sample(difference, draws)
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    observed = abs(float(difference.sum()))
    if not len(sizes):
        return 1.0
    observed_all = float(counts @ sizes)
    sums = np.empty(draws)
    step = max(1, BLOCK_ROWS // len(sizes))
    starts = range(0, draws, step)
    for start, generator in zip(starts, _generators(seed, len(starts)), strict=True):
        stop = min(start + step, draws)
        kept: NDArray[np.integer]
        if counts.max() == 1:
            kept = _random_bits(generator, (stop - start, len(sizes)))
        else:  # of c users with the same |difference| a binomial number keeps the sign
            kept = generator.binomial(counts, 0.5, size=(stop - start, len(sizes)))
        sums[start:stop] = 2 * (kept @ sizes) - observed_all
    as_far = int(np.count_nonzero(np.abs(sums) >= observed * (1 - 1e-12)))
    return (as_far + 1) / (draws + 1)


def holm(p_values: ArrayLike | Mapping[str, float]) -> NDArray[np.float64]:
    """Holm's adjusted p-values over a whole table: reject where they are below the level.  (M,)

    Holm (1979). A NaN (no test was possible) stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    listed = list(p_values.values()) if isinstance(p_values, Mapping) else p_values
    p = np.asarray(listed, dtype=np.float64)
    flat = p.ravel()
    tested = np.flatnonzero(~np.isnan(flat))
    if len(tested) and (flat[tested].min() < 0 or flat[tested].max() > 1):
        raise ValueError("p-values outside [0, 1]")
    order = tested[np.argsort(flat[tested], kind="stable")]
    stepped = flat[order] * (len(order) - np.arange(len(order)))
    adjusted = np.full(flat.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return adjusted.reshape(p.shape)


def minimum_detectable_difference(
    a: ArrayLike, b: ArrayLike, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest true mean difference that this many paired users would show with that power.

    (z(1 − α/2) + z(power)) · sd(a − b) / √N.
    """
    left, right = as_values("a", a), as_values("b", b)
    n = require_same_length(a=left, b=right)
    if n < 2:
        raise ValueError(f"{n} users; a spread needs at least 2")
    spread = float(np.std(left - right, ddof=1)) / np.sqrt(n)
    return float((ndtri(1 - alpha / 2) + ndtri(power)) * spread)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A mean over seeds and users with the variance of seeds apart from that of users."""

    mean: float
    se: float  # of the mean, for new seeds and new users together
    low: float
    high: float
    seed_std: float  # of one run's true mean between seeds
    user_se: float  # of the mean, from the users alone
    n_seeds: int
    n_users: int


def split_variance(values: Sequence[ArrayLike] | NDArray[np.floating]) -> Spread:
    """Seed variance apart from user variance, two-way random effects.  (S, N) -> Spread

    From the mean squares of seeds, users and residual; a negative estimate is 0.
    """
    table = np.stack([as_values(f"seed {i}", row) for i, row in enumerate(values)])
    n_seeds, n_users = table.shape
    if n_seeds < 2 or n_users < 2:
        raise ValueError(f"{n_seeds} seeds, {n_users} users; both variances need at least 2")
    mean = float(table.mean())
    of_seed, of_user = table.mean(1) - mean, table.mean(0) - mean
    residual = table - mean - of_seed[:, None] - of_user
    ms_residual = float((residual**2).sum() / ((n_seeds - 1) * (n_users - 1)))
    ms_seed = float(n_users * (of_seed**2).sum() / (n_seeds - 1))
    ms_user = float(n_seeds * (of_user**2).sum() / (n_users - 1))
    seed_variance = max(0.0, (ms_seed - ms_residual) / n_users)
    user_variance = max(0.0, (ms_user - ms_residual) / n_seeds)
    se = float(
        np.sqrt(
            seed_variance / n_seeds + user_variance / n_users + ms_residual / (n_seeds * n_users)
        )
    )
    half = float(ndtri(0.975)) * se
    return Spread(
        mean=mean, se=se, low=mean - half, high=mean + half,
        seed_std=float(np.sqrt(seed_variance)), user_se=float(np.sqrt(user_variance / n_users)),
        n_seeds=n_seeds, n_users=n_users,
    )  # fmt: skip


def _drawn_sums(values: Floats, draws: int, seed: int, sizes: Floats | None = None) -> Floats:
    """Sum over N values drawn with replacement, ``draws`` times; over the sum of ``sizes``.

    Few distinct values (hits, gains of whole ranks): how often each is drawn is multinomial,
    which is exact and costs distinct values instead of rows. Else rows are drawn, and of many
    rows heaps: rows dealt at random into equal heaps keep the variance of the mean.
    """
    n = len(values)
    columns = [values] if sizes is None else [values, sizes]
    counts: NDArray[np.integer] | None = None
    if sizes is None and n > 1000:
        distinct, times = np.unique(values, return_counts=True)
        if len(distinct) <= n // 32:
            columns, counts = [distinct], times
    if counts is None and n > MOST_ROWS:
        heap = np.random.default_rng([seed, n]).permutation(n) % HEAPS
        columns = [np.bincount(heap, weights=c).astype(np.float64) for c in columns]
        if sizes is None:
            columns.append(np.bincount(heap).astype(np.float64))
    width = len(columns[0])
    step = max(1, min(draws, BLOCK_ROWS // width))
    starts = range(0, draws, step)

    def one_block(start: int, generator: np.random.Generator) -> Floats:
        shape = (min(step, draws - start), width)
        if counts is not None:
            return generator.multinomial(n, counts / n, size=shape[0]) @ columns[0]
        rows = generator.integers(0, width, size=shape)
        sums = [column.take(rows).sum(1) for column in columns]
        return sums[0] if len(sums) == 1 else sums[0] / sums[1] * (1 if sizes is not None else n)

    with ThreadPoolExecutor(min(4, cpu_count() or 1)) as pool:
        return np.concatenate(list(pool.map(one_block, starts, _generators(seed, len(starts)))))


def _generators(seed: int, n: int) -> list[np.random.Generator]:
    """Independent streams, one a block, so that threads never change a draw."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(n)]


def _random_bits(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
    n = shape[0] * shape[1]
    packed = np.frombuffer(generator.bytes((n + 7) // 8), dtype=np.uint8)
    return np.unpackbits(packed, count=n).reshape(shape)


def _require_finite_sample(values: Floats, draws: int) -> None:
    if not len(values) or draws < 1:
        raise ValueError(f"{len(values)} values and {draws} draws; expected at least one of each")
    if not np.isfinite(values).all():
        raise ValueError("values hold infinities; their mean has no interval. Clip the loss first")


def interval_of_draws(value: float, drawn: Floats, n: int, level: float = 0.95) -> Interval:
    """A value with the percentile interval and p-value of what resampling made of it."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}; expected a share strictly between 0 and 1")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p_value = min(1.0, 2 * (int(tail) + 1) / (len(drawn) + 1))
    return Interval(value=value, low=float(low), high=float(high), p_value=p_value, n=n)
