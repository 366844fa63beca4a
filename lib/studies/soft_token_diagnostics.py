"""What a trained soft-token recommender listens to, whom it serves, and newcomers.

Each function takes a saved run and answers user states or ranks, so that everything is judged by
the same full ranking, paired by user.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.histories import Histories, Targets
from lib.evaluate import ranking, segments
from lib.studies.soft_token_maps import fit_titles, title_rows, user_rows
from lib.studies.soft_token_run import SavedRun
from lib.studies.soft_tokens import Windows, encode, rank_vectors, test_windows

__all__ = [
    "bias_table", "cold_ranks", "cosines", "listen", "new_item_ranks", "new_user_ranks",
    "rank_states", "shuffle_histories",
]  # fmt: skip

Floats = NDArray[np.float32]
Ranks = NDArray[np.float64]
FOLDS = 5


def shuffle_histories(windows: Windows, *, seed: int) -> Windows:
    """Every history in random order, its length and items unchanged."""
    draws = np.random.default_rng(seed).random(windows.items.shape)
    draws[windows.items == 0] = 2.0  # padding stays behind
    order = np.argsort(draws, axis=1)
    return Windows(windows.users, np.take_along_axis(windows.items, order, 1), windows.lengths)


def listen(
    run: SavedRun, histories: Histories, targets: Targets, *, seed: int, device: str = "cpu"
) -> dict[str, Floats]:
    """User states as trained and with one thing taken away.  -> name: (T, d)"""
    model = run.model
    windows = test_windows(histories, targets, model.config.max_len)
    shuffled = shuffle_histories(windows, seed=seed)
    others = np.random.default_rng(seed).permutation(histories.n_users)[windows.users]
    swapped = Windows(others.astype(np.int32), windows.items, windows.lengths)
    newest = histories.windows(targets.users, targets.positions, 1)
    last = Windows(windows.users, *newest)
    states = {
        "as trained": encode(model, windows, device=device),
        "history shuffled": encode(model, shuffled, device=device),
        "newest item only": encode(model, last, device=device),
    }
    if model.config.use_user:
        states["user token dropped"] = encode(model, windows, device=device, with_user=False)
        states["user token of another"] = encode(model, swapped, device=device)
    return states


def rank_states(run: SavedRun, states: Floats, histories: Histories, targets: Targets) -> Ranks:
    """Full ranking of the targets by these states."""
    items = run.model.item_vectors().float().cpu().numpy()
    return rank_vectors(states, items, histories, targets, filter_seen=run.filter_seen).ranks


def cosines(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Cosine of each pair of rows.  (N, D), (N, D) -> (N,)"""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, 1e-12), dtype=np.float64)


def new_user_ranks(
    run: SavedRun, histories: Histories, targets: Targets, *, device: str = "cpu"
) -> dict[str, Ranks]:
    """Ranks for users who were not in training: without a row, the mean row, an inferred one."""
    model = run.model
    windows = test_windows(histories, targets, model.config.max_len)
    items = model.item_vectors().float().cpu().numpy()
    table = model.item_table().detach().float().cpu().numpy()
    trained = model.users.weight.detach().float().cpu().numpy()[run.known_users]
    rows = {
        "no user token": np.zeros((len(targets), model.config.d_rec), np.float32),
        "mean user row": np.repeat(trained.mean(axis=0, keepdims=True), len(targets), axis=0),
        "inferred user row": user_rows(windows.items, table, run.user_map),
    }
    if not model.config.use_user:
        rows = {"no user token": rows["no user token"]}
    return {
        name: rank_vectors(
            encode(model, windows, device=device, user_rows=np.asarray(given, np.float32)), items,
            histories, targets, filter_seen=run.filter_seen, device=device,
        ).ranks
        for name, given in rows.items()
    }  # fmt: skip


def replaced_ranks(
    users: Floats, items: Floats, own: Floats, histories: Histories, targets: Targets,
    *, filter_seen: bool,
) -> Ranks:  # fmt: skip
    """Ranks where each target alone scores by the vector given for it.  (T, d), (V+1, d), (T, d)"""
    wanted = histories.target_items(targets)
    score_of_target = (users * own).sum(axis=1, keepdims=True)
    joined = np.hstack([users, score_of_target, wanted[:, None]]).astype(np.float64)

    def score(part: NDArray[np.float64]) -> Floats:
        scores = part[:, :-2].astype(np.float32) @ items.T
        scores[np.arange(len(part)), part[:, -1].astype(np.int64)] = part[:, -2]
        return np.asarray(scores)

    seen = histories.seen(targets.users, targets.positions) if filter_seen else None
    return ranking.rank_targets(joined, score, wanted, seen)


def new_item_ranks(
    run: SavedRun, histories: Histories, targets: Targets, users: Floats, *, ridge: float, seed: int
) -> dict[str, Ranks]:
    """Ranks of targets as if their item were new: five folds of items, rows from titles alone.

    Every fold's rows come from a map that was fitted without its items.
    """
    model, wanted = run.model, histories.target_items(targets)
    table = model.item_table().detach().float().cpu().numpy()
    rng = np.random.default_rng(seed)
    fold = rng.integers(0, FOLDS, len(table))
    guessed = np.zeros_like(table)
    for part in range(FOLDS):
        counts = np.where(fold == part, 0, run.counts)
        inside = np.flatnonzero(fold == part)
        found = fit_titles(run.titles, table, counts, ridge=ridge)
        guessed[inside] = title_rows([run.titles[item] for item in inside.tolist()], found)
    vectors = model.item_vectors().float().cpu().numpy()
    others = rng.permutation(np.arange(1, len(table)))[wanted - 1]
    rows = {"own row": vectors[wanted], "row from its title": _vectors(run, guessed[wanted]),
            "row of another item": vectors[others]}  # fmt: skip
    return {
        name: replaced_ranks(users, vectors, own, histories, targets, filter_seen=run.filter_seen)
        for name, own in rows.items()
    }


def cold_ranks(run: SavedRun, histories: Histories, targets: Targets, users: Floats) -> Ranks:
    """Ranks where every item that was never trained has the row of its title."""
    vectors = run.model.item_vectors().float().cpu().numpy().copy()
    cold = np.flatnonzero(run.counts == 0)
    cold = cold[cold > 0]
    rows = title_rows([run.titles[item] for item in cold.tolist()], run.title_map)
    vectors[cold] = _vectors(run, rows)
    return rank_vectors(users, vectors, histories, targets, filter_seen=run.filter_seen).ranks


def _vectors(run: SavedRun, rows: Floats) -> Floats:
    """Item rows as the vectors that are multiplied: of length one for a cosine score."""
    if run.model.config.score == "dot":
        return rows
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def bias_table(
    vectors: Mapping[str, tuple[Floats, Floats]], histories: Histories, targets: Targets, *,
    k: int, filter_seen: bool,
) -> pl.DataFrame:  # fmt: skip
    """How each row spreads its first K places over the catalogue."""
    seen = histories.seen(targets.users, targets.positions) if filter_seen else None
    lines = []
    for name, (users, items) in vectors.items():
        lists = ranking.top_items(users, items, k, seen)
        lines.append({
            "row": name, f"coverage@{k}": segments.coverage(lists, histories.n_items),
            "gini": segments.gini(lists, histories.n_items),
            "mean training count": segments.average_popularity(lists, histories.counts),
            "tail share": segments.tail_share(lists, histories.counts),
        })  # fmt: skip
    wanted = histories.target_items(targets)
    lines.append({
        "row": "what was bought", f"coverage@{k}": len(np.unique(wanted)) / histories.n_items,
        "gini": segments.gini(wanted[:, None], histories.n_items),
        "mean training count": segments.average_popularity(wanted[:, None], histories.counts),
        "tail share": segments.tail_share(wanted[:, None], histories.counts),
    })  # fmt: skip
    return pl.DataFrame(lines)
