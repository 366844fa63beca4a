"""Ranking among 1 + N sampled candidates: the compatibility column, and what it says of all items.

A rank among a hundred sampled items is not a smaller version of the rank among all: it can reverse
the order of two models (Krichene and Rendle, 2020). It is kept because older tables have nothing
else, with their corrected estimator beside it, which gives back the full measure at the price of
variance. Negatives are distinct within a user and never one of the user's own positives.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from lib.evaluate.checks import Floats, Ints
from lib.evaluate.ranking import rank_targets
from lib.evaluate.scoring import Matrix, Seen

__all__ = ["correct_sampled", "rank_candidates", "sample_candidates"]

TABLE_CELLS = 4 * 2**20  # of the int16 table (users, items) that marks what is taken: 8 MiB
ROUNDS = 25  # of drawing again; what is still missing then is drawn exactly, row by row


def sample_candidates(
    targets: ArrayLike,
    positives: Seen,
    n_items: int,
    n: int = 100,
    *,
    popularity: NDArray[np.integer] | None = None,
    seed: int = 0,
) -> NDArray[np.int32]:
    """The target in column 0, then n negatives.  (B,), CSR -> (B, 1+N)

    ``positives`` holds *all* items of each user, of every split: a sampled later purchase would
    count a good recommendation as a mistake. With ``popularity`` (training counts, (V+1,)) the
    negatives are drawn in proportion to it, one after the other without replacement.
    """
    wanted = np.asarray(targets, dtype=np.int64)
    weights = _weights(popularity, n_items)
    _check(wanted, positives, n_items)
    # every unit of weight is one entry: an integer draw picks items by popularity exactly
    tickets = None if popularity is None else np.repeat(np.arange(n_items + 1), weights)
    candidates = np.empty((len(wanted), 1 + n), dtype=np.int32)
    candidates[:, 0] = wanted
    step = max(1, TABLE_CELLS // (n_items + 1))
    table = np.full((min(step, max(1, len(wanted))), n_items + 1), -1, dtype=np.int16)
    children = np.random.SeedSequence(seed).spawn(-(-len(wanted) // step) if len(wanted) else 0)
    for i, child in enumerate(children):
        rows = slice(i * step, min((i + 1) * step, len(wanted)))
        owner = table[: rows.stop - rows.start]
        _fill(
            candidates[rows, 1:], owner, _taken(wanted, positives, rows), weights, tickets,
            np.random.default_rng(child), rows.start,
        )  # fmt: skip
    return candidates


def rank_candidates(
    users: Matrix, items: Matrix | Callable[[Any, NDArray[np.int32]], Any],
    candidates: NDArray[np.int32], *, chunk: int = 128,
) -> Floats:  # fmt: skip
    """Rank of column 0 among the candidates, ties as in the full ranking.  (B, D), (V+1, D) -> (B,)

    ``items`` may be a function of (slice of users, (b, 1+N) ids) that returns (b, 1+N) scores.
    """
    ranks = np.empty(len(candidates))
    for start in range(0, len(candidates), chunk):
        rows = slice(start, min(start + chunk, len(candidates)))
        ids = candidates[rows]
        if callable(items):
            scores = items(users[rows], ids)
        else:
            scores = (users[rows][:, None, :] * items[ids]).sum(-1)
        # the candidates are a catalogue of their own: padding first, the target is item 1
        ranks[rows] = rank_targets(
            scores, lambda block: _with_padding(block), np.ones(len(ids), np.int64), chunk=chunk
        )
    return ranks


def correct_sampled(
    sampled_ranks: ArrayLike,
    measure: Callable[[Floats], Floats],
    n_items: int,
    n: int = 100,
    *,
    method: Literal["bias-variance", "rank"] = "bias-variance",
    gamma: float = 0.1,
) -> Floats:
    """Estimate, per user, of a full-ranking measure from ranks among 1 + n.  (B,) -> (B,)

    Krichene and Rendle (2020), Section 6, for *uniform* negatives only. ``rank`` puts the unbiased
    rank 1 + (V−1)(r−1)/n into the measure. ``bias-variance`` solves
    ((1−γ)AᵀA + γ diag(c)) f = Aᵀb for the value f of each sampled rank, all full ranks equally
    likely. A small γ trades bias for variance; at 0 it explodes (measured on Beauty: −4.4 for a
    hit rate of .011, against .0097 at γ = .01 and .0070 at .1). Only the mean over users means
    something.

    NOTE[DIFF]: hypergeometric where the paper has binomial, because our negatives are distinct.
    ``n_items`` counts the items the user could have been shown (V minus what is filtered).
    """
    ranks = np.asarray(sampled_ranks, dtype=np.float64)
    if ranks.size and not (ranks.min() >= 1 and ranks.max() <= n + 1):
        raise ValueError(
            f"sampled ranks span {ranks.min()} to {ranks.max()}; expected 1 to {n + 1}"
        )
    if not 1 <= n < n_items:
        raise ValueError(f"n={n} negatives of n_items={n_items}; expected 1 <= n < n_items")
    if method == "rank":
        unbiased = np.asarray(1 + (n_items - 1) * (ranks - 1) / n, dtype=np.float64)
        return measure(unbiased)
    values = _values_by_sampled_rank(measure, n_items, n, gamma)
    # a tie gives a rank between two integers; the estimate lies between theirs
    return np.interp(ranks, np.arange(1, n + 2), values)


def _values_by_sampled_rank(
    measure: Callable[[Floats], Floats], n_items: int, n: int, gamma: float
) -> Floats:
    log_factorial = gammaln(np.arange(n_items + 1) + 1.0)
    drawn = np.arange(n + 1)  # how many of the sample rank higher
    gram, moment, mass = np.zeros((n + 1, n + 1)), np.zeros(n + 1), np.zeros(n + 1)
    for start in range(0, n_items, 20_000):
        above = np.arange(start, min(start + 20_000, n_items))  # items ranked higher among all
        below, full_rank = n_items - 1 - above, (above + 1).astype(np.float64)
        possible = (drawn <= above[:, None]) & (n - drawn <= below[:, None])
        log_chance = (
            _log_choose(log_factorial, above[:, None], drawn)
            + _log_choose(log_factorial, below[:, None], n - drawn)
            - _log_choose(log_factorial, np.array(n_items - 1), np.array(n))
        )
        chance = np.where(possible, np.exp(log_chance), 0.0)  # A without its prior
        gram += chance.T @ chance
        moment += chance.T @ measure(full_rank)
        mass += chance.sum(0)
    left = (1 - gamma) * gram + gamma * np.diag(mass)
    return np.asarray(np.linalg.lstsq(left, moment, rcond=None)[0])


def _log_choose(log_factorial: Floats, population: Ints, drawn: Ints) -> Floats:
    rest = np.maximum(population - drawn, 0)  # impossible draws are masked by the caller
    result: Floats = log_factorial[population] - log_factorial[drawn] - log_factorial[rest]
    return result


def _fill(
    negatives: NDArray[np.int32], owner: NDArray[np.int16], taken: tuple[Ints, Ints],
    weights: Ints, tickets: Ints | None, generator: np.random.Generator, first_row: int,
) -> None:  # fmt: skip
    """Write n distinct free items into each row of ``negatives``; ``owner`` is left clean.

    ``owner[row, item]`` is −1 where free, −2 where it belongs to the user, else the column that
    drew it. Two columns that draw the same item write one after the other: the last one owns it.
    """
    n = negatives.shape[1]
    owner[taken] = -2
    lost = np.bincount(taken[0], weights=weights[taken[1]] > 0, minlength=len(negatives))
    short = np.flatnonzero(np.count_nonzero(weights) - lost < n)
    if len(short):
        left = int(np.count_nonzero(weights) - lost[short[0]])
        owner[taken] = -1
        raise ValueError(
            f"user {first_row + short[0]} has only {left} items that are not its own; expected at "
            f"least n={n}. Draw fewer, or leave popularity out"
        )
    rows, columns = (axis.ravel() for axis in np.indices(negatives.shape))
    for _ in range(ROUNDS):
        if not len(rows):
            break
        items = _draw(generator, len(rows), len(weights), tickets)
        free = owner[rows, items] == -1
        owner[rows[free], items[free]] = columns[free]
        won = free & (owner[rows, items] == columns)
        negatives[rows[won], columns[won]] = items[won]
        rows, columns = rows[~won], columns[~won]
    for row in np.unique(rows):  # few items left: exponential races draw without replacement
        open_ = np.flatnonzero((owner[row] == -1) & (weights > 0))
        missing = columns[rows == row]
        race = generator.exponential(size=len(open_)) / weights[open_]
        winners = open_[np.argsort(race)[: len(missing)]]
        negatives[row, missing] = winners
    owner[taken] = -1
    owner[np.arange(len(negatives))[:, None], negatives] = -1


def _draw(
    generator: np.random.Generator, n: int, n_ids: int, tickets: Ints | None
) -> NDArray[np.integer]:
    if tickets is None:
        return generator.integers(1, n_ids, n)
    return tickets[generator.integers(0, len(tickets), n)]


def _taken(targets: Ints, positives: Seen, rows: slice) -> tuple[Ints, Ints]:
    """Distinct (row, item) of the users' own items, their targets and padding."""
    offsets, items = positives
    n = rows.stop - rows.start
    own = np.repeat(np.arange(n), np.diff(offsets[rows.start : rows.stop + 1]))
    ids = np.asarray(items[offsets[rows.start] : offsets[rows.stop]], dtype=np.int64)
    who = np.concatenate([own, np.arange(n), np.arange(n)])
    what = np.concatenate([ids, targets[rows], np.zeros(n, np.int64)])
    base = int(what.max(initial=0)) + 1
    keys = np.unique(who * base + what)
    return keys // base, keys % base


def _weights(popularity: NDArray[np.integer] | None, n_items: int) -> Ints:
    if popularity is None:
        weights = np.ones(n_items + 1, dtype=np.int64)
    else:
        weights = np.asarray(popularity).astype(np.int64)
        if weights.shape != (n_items + 1,) or weights.min() < 0:
            raise ValueError(
                f"popularity has shape {weights.shape}; expected ({n_items + 1},) counts >= 0"
            )
    weights[0] = 0
    return weights


def _check(targets: Ints, positives: Seen, n_items: int) -> None:
    offsets, items = positives
    if len(offsets) != len(targets) + 1:
        raise ValueError(
            f"positives have {len(offsets)} offsets; expected {len(targets)} users + 1"
        )
    for name, ids in (("targets", targets), ("positives", np.asarray(items))):
        if len(ids) and (ids.min() < 0 or ids.max() > n_items):
            raise ValueError(f"{name} run from {ids.min()} to {ids.max()}; there are {n_items}")


def _with_padding(scores: Any) -> Any:
    """A first column to be ignored, in NumPy as in torch.  (b, C) -> (b, 1+C)"""
    return scores[:, [0, *range(scores.shape[1])]]
