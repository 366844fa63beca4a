"""Tuning chooses by validation targets only; every row of the page is ranked alike."""

from pathlib import Path

import numpy as np
import pytest

from lib.data.histories import Histories, Targets, write_histories
from lib.data.splits import split_last
from lib.models.neighbours import NeighbourConfig, popularity
from lib.studies.counting import (
    counting_rows,
    measure,
    rank_scorer,
    sample_of,
    segment_table,
    tune_neighbours,
)

CONFIG = NeighbourConfig(
    gap_decay=0.8,
    backward=0.5,
    source_power=0.5,
    target_power=0.25,
    history_decay=0.5,
    max_gap=10,
)


def world(folder: Path, *, n_users: int = 300, n_items: int = 20, seed: int = 0) -> Histories:
    """Users walk a ring of items, with a random step now and then: neighbours can know the next."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random((n_users, 8)) < 0.8, 1, rng.integers(0, n_items, (n_users, 8)))
    items = (rng.integers(0, n_items, (n_users, 1)) + np.cumsum(steps, axis=1)) % n_items + 1
    offsets = np.arange(0, 8 * n_users + 1, 8)
    return write_histories(
        folder,
        items=items.ravel(),
        times=np.arange(items.size),
        offsets=offsets,
        targets=split_last(offsets).targets,
        item_keys=["", *map(str, range(1, n_items + 1))],
        titles=[""] * (n_items + 1),
        made={},
    )


def test_tuning_keeps_the_best_of_what_it_tried(tmp_path: Path) -> None:
    histories = world(tmp_path)
    grid = {"history_decay": [0.1, 0.9], "max_gap": [1], "backward": [0.0, 0.5]}
    told: list[tuple[int, int]] = []
    best, tried = tune_neighbours(
        histories, histories.targets["valid"], CONFIG, grid, cutoff=5, max_len=5,
        filter_seen=False, report=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    top = tried.sort("valid ndcg@5", descending=True).row(0, named=True)
    assert [top[name] for name in ("history_decay", "max_gap", "backward")] == [
        best.history_decay,
        best.max_gap,
        best.backward,
    ]
    assert isinstance(best.max_gap, int)
    assert told[0] == (1, 6)
    assert told[-1][0] == len(tried) <= 6
    assert tried.unique().height == len(tried)


def test_tuning_never_looks_at_test_targets(tmp_path: Path) -> None:
    """With every user's last item replaced, the same settings are chosen by the same numbers."""
    histories = world(tmp_path / "a")
    items = np.array(histories.items)
    items[histories.offsets[1:] - 1] = 1
    changed = write_histories(
        tmp_path / "b", items=items, times=histories.times, offsets=histories.offsets,
        targets=histories.targets, item_keys=histories.item_keys, titles=histories.titles, made={},
    )  # fmt: skip
    grid = {"history_decay": [0.1, 0.9]}
    first, second = (
        tune_neighbours(h, h.targets["valid"], CONFIG, grid, cutoff=5, max_len=5, filter_seen=True)
        for h in (histories, changed)
    )
    assert first[0] == second[0]
    assert first[1].equals(second[1])


def test_a_misspelt_setting_of_the_grid_is_named(tmp_path: Path) -> None:
    histories = world(tmp_path, n_users=5)
    with pytest.raises(ValueError, match=r"grid names \['decay'\]"):
        tune_neighbours(
            histories, histories.targets["valid"], CONFIG, {"decay": [1.0]}, cutoff=5, max_len=5,
            filter_seen=False,
        )  # fmt: skip


def test_all_rows_are_ranked_and_the_chain_beats_popularity(tmp_path: Path) -> None:
    histories = world(tmp_path)
    test = histories.targets["test"]
    ranks = {
        row.name: rank_scorer(
            histories, test, row.scorer, max_len=row.max_len, filter_seen=row.filter_seen
        )
        for row in counting_rows(histories, CONFIG, max_len=5, filter_seen=False)
    }
    assert len(ranks) == 6
    assert all(len(values) == len(test) for values in ranks.values())
    means = {
        name: measure(values, test.users, [5], draws=100, seed=0)["ndcg@5"]
        for name, values in ranks.items()
    }
    assert means["Markov"].low > means["popularity"].high
    table = segment_table(histories, test, ranks, cutoff=5)
    by_novelty = table.filter(table["by"] == "target")
    assert int(by_novelty["targets"].sum()) == len(test)
    weighted = float((by_novelty["Markov"] * by_novelty["targets"]).sum()) / len(test)
    assert weighted == pytest.approx(means["Markov"].value)


def test_several_targets_of_a_user_are_drawn_together() -> None:
    ranks, users = np.array([1.0, 1.0, 50.0]), np.array([0, 0, 1])
    together = measure(ranks, users, [10], draws=200, seed=0)["hit@10"]
    assert (together.value, together.n) == (pytest.approx(2 / 3), 2)
    apart = measure(ranks, np.arange(3), [10], draws=200, seed=0)["hit@10"]
    assert apart.n == 3


def test_a_sample_keeps_the_order_and_the_whole_when_asked() -> None:
    targets = Targets(np.arange(100, dtype=np.int32), np.ones(100, dtype=np.int64))
    assert sample_of(targets, 0, seed=1) is targets
    assert sample_of(targets, 200, seed=1) is targets
    users = sample_of(targets, 10, seed=1).users
    assert len(users) == 10
    assert (np.diff(users) > 0).all()


def test_repeats_of_seen_items_stay_rankable(tmp_path: Path) -> None:
    histories = world(tmp_path)
    test = histories.targets["test"]
    scorer = popularity(histories.counts)
    ranks = rank_scorer(histories, test, scorer, max_len=1, filter_seen=True)
    assert np.isfinite(ranks).all()
