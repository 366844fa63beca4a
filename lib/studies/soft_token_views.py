"""What the page of the soft-token study shows of its rows: ranks, costs, newcomers, a map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.histories import Histories, Targets
from lib.evaluate import projection
from lib.studies.sequences import sample_targets
from lib.studies.soft_token_diagnostics import new_user_ranks
from lib.studies.soft_token_rows import Row
from lib.studies.soft_token_run import SavedRun, load_run
from lib.studies.soft_tokens import encode, rank_vectors, test_windows

__all__ = ["cost_table", "held_out_ranks", "map_both", "rank_rows", "show_lists"]

Ranks = NDArray[np.float64]
Rows = Mapping[str, Sequence[Row]]
NEIGHBOURS = 10


def rank_rows(
    rows: Rows, histories: Histories, *, filter_seen: bool, device: str = "cpu"
) -> dict[str, Ranks]:
    """Full ranking of the test targets by every row and seed.  -> name: (S, T)

    ``held-out`` is left out: it never saw some of these users, and is judged on them alone.
    """
    test = histories.targets["test"]
    wrong = {name: len(row.users) for name, seeds in rows.items() for row in seeds
             if len(row.users) != len(test) or len(row.items) != histories.n_items + 1}  # fmt: skip
    if wrong:
        raise ValueError(f"rows {sorted(wrong)} were trained on other histories: {wrong} user "
                         f"states for {len(test)} test targets; run 30 again on these")  # fmt: skip
    return {
        name: np.stack([
            rank_vectors(row.users, row.items, histories, test, filter_seen=filter_seen,
                         device=device).ranks for row in seeds
        ])
        for name, seeds in rows.items() if name.partition("+")[0] != "held-out"
    }  # fmt: skip


def held_out_ranks(
    row: Row, rows: Rows, histories: Histories, targets: Targets, *, device: str = "cpu"
) -> dict[str, Ranks]:
    """Ranks of the targets of users that ``row`` never saw, and of the row that knew them."""
    run = load_run(row.folder / "run", device=device)
    strangers = np.isin(targets.users, run.description["left_out"])
    theirs = Targets(targets.users[strangers], targets.positions[strangers])
    found = new_user_ranks(run, histories, theirs, device=device)
    known = row.name.replace("held-out", "pretrained")
    if known in rows:
        twin = rows[known][0]
        found["trained row"] = rank_vectors(
            twin.users[strangers], twin.items, histories, theirs, filter_seen=run.filter_seen,
            device=device,
        ).ranks  # fmt: skip
    return found


def cost_table(rows: Rows, quality: Mapping[str, float]) -> pl.DataFrame:
    """Means over seeds of what each row cost, with what it reached."""
    lines = []
    for name, seeds in rows.items():
        if name not in quality:
            continue
        mean = {key: float(np.mean([row.cost[key] for row in seeds])) for key in seeds[0].cost}
        lines.append({
            "row": name, "seeds": len(seeds), "ndcg@10": quality[name],
            "train seconds": mean["seconds"], "positions per second": mean["positions_per_second"],
            "epochs kept": mean["best_epoch"], "numbers trained": round(mean["trained"]),
            "numbers held": round(mean["parameters"]),
            "NDCG@10 per minute": 60 * quality[name] / max(mean["seconds"], 1e-9),
        })  # fmt: skip
    return pl.DataFrame(lines).sort("train seconds")


def map_both(
    run: SavedRun, histories: Histories, *, n_points: int, perplexities: Sequence[float],
    iterations: int, seed: int,
) -> tuple[dict[str, NDArray[Any]], list[str], pl.DataFrame]:  # fmt: skip
    """t-SNE of item vectors and of user states, as many of each; their groups; what is kept.

    The panels share one list of groups: items first, and users by the group they bought most.
    """
    rng = np.random.default_rng(seed)
    sample = sample_targets(histories.targets["test"], n_points, seed=seed)
    trained = np.flatnonzero(run.counts > 0)
    n = min(len(sample), len(trained))
    items = trained[projection.sample_rows(len(trained), n, rng)]
    sample = Targets(sample.users[:n], sample.positions[:n])
    windows = test_windows(histories, sample, run.model.config.max_len)
    device = str(next(run.model.parameters()).device)
    groups = np.array([name.split("|")[0] or "none" for name in histories.groups])
    vectors = {
        "items": (run.model.item_vectors().float().cpu().numpy()[items], groups[items]),
        "users": (encode(run.model, windows, device=device), bought_most(windows.items, groups)),
    }
    kinds = np.concatenate([names for _, names in vectors.values()])
    maps, lines = {}, []
    empty = np.full((n, 2), np.nan)
    for place, (what, (x, names)) in enumerate(vectors.items()):
        plots = projection.project(
            x, [(p, seed) for p in perplexities], neighbours=NEIGHBOURS, iterations=iterations
        )
        purity = projection.group_purity(x, names, NEIGHBOURS)
        for plot in plots:
            panes = [empty, empty]
            panes[place] = plot.coordinates
            maps[f"{what}, perplexity {plot.perplexity:g}"] = np.concatenate(panes)
            lines.append({
                "what": f"{what}, perplexity {plot.perplexity:g}", "points": n,
                "neighbours kept": plot.preservation, "purity": purity["purity"],
                "purity by chance": purity["chance"],
                "effective rank": projection.effective_rank(x),
            })  # fmt: skip
    return maps, kinds.tolist(), pl.DataFrame(lines)


def bought_most(items: NDArray[np.int32], groups: NDArray[np.str_]) -> NDArray[np.str_]:
    """The group that fills most of each history."""
    names, codes = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(items), len(names)), dtype=np.int64)
    rows, columns = np.nonzero(items)
    np.add.at(counts, (rows, codes[items[rows, columns]]), 1)
    return np.asarray(names[counts.argmax(axis=1)])


def show_lists(histories: Histories, targets: Targets, *, n: int) -> list[dict[str, Any]]:
    """A few histories as lines that ``recommend`` reads; the last has an item nobody knows."""
    chosen = Targets(targets.users[:n], targets.positions[:n])
    offsets, items = histories.seen(chosen.users, chosen.positions)
    lines = []
    for place, user in enumerate(chosen.users.tolist()):
        keys = [histories.item_keys[item] for item in items[offsets[place] : offsets[place + 1]]]
        lines.append({"user": user, "items": keys})
    lines[-1] = {"items": ["an item nobody knows", *lines[-1]["items"]]}
    return lines
