"""Rows that count, against dictionaries and loops; and the published figures on Beauty."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.histories import Histories
from lib.data.prepare import build_histories, read_raw
from lib.evaluate.ranking import hit, ndcg
from lib.models.neighbours import NeighbourConfig, count_pairs, markov, neighbours, popularity
from lib.studies.counting import rank_scorer, training_part

V = 6
CONFIG = NeighbourConfig(
    gap_decay=0.8,
    backward=0.5,
    source_power=0.5,
    target_power=0.25,
    history_decay=0.5,
    max_gap=50,
)
SEQUENCES = st.lists(st.lists(st.integers(1, V), max_size=7), min_size=1, max_size=6)


def flat(sequences: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, sequences)])
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int32)
    return offsets, items, np.bincount(items, minlength=V + 1)


def padded(history: list[int], width: int = 9) -> np.ndarray:
    return np.array([history[-width:] + [0] * max(0, width - len(history))])


def neighbours_by_loops(
    sequences: list[list[int]], history: list[int], config: NeighbourConfig
) -> np.ndarray:
    """The formula at the top of the module, pair by pair, in float64."""
    count = Counter(item for sequence in sequences for item in sequence)
    pairs: Counter[tuple[int, int]] = Counter()
    for sequence in sequences:
        for i, a in enumerate(sequence):
            for j in range(i + 1, min(len(sequence), i + 1 + config.max_gap)):
                b, weight = sequence[j], config.gap_decay ** (j - i - 1)
                if a != b:
                    pairs[a, b] += weight
                    pairs[b, a] += config.backward * weight
    scores = np.zeros(V + 1)
    for b in range(1, V + 1):
        for back, a in enumerate(reversed(history)):
            norm = max(count[a], 1) ** config.source_power * (count[b] + 2) ** config.target_power
            scores[b] += config.history_decay**back * pairs[a, b] / norm
    return scores


@settings(max_examples=60, deadline=None)
@given(
    sequences=SEQUENCES,
    history=st.lists(st.integers(1, V), max_size=9),
    max_gap=st.integers(1, 6),
    backward=st.sampled_from([0.0, 0.5]),
)
def test_neighbours_equal_the_formula(
    sequences: list[list[int]], history: list[int], max_gap: int, backward: float
) -> None:
    offsets, items, counts = flat(sequences)
    config = NeighbourConfig(
        gap_decay=0.7,
        backward=backward,
        source_power=0.5,
        target_power=0.25,
        history_decay=0.6,
        max_gap=max_gap,
    )
    scores = neighbours(offsets, items, counts, config)(padded(history))
    wanted = neighbours_by_loops(sequences, history, config)
    np.testing.assert_allclose(scores[0], wanted, rtol=2e-5, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(sequences=SEQUENCES, history=st.lists(st.integers(1, V), max_size=9))
def test_markov_equals_a_dictionary_of_transitions(
    sequences: list[list[int]], history: list[int]
) -> None:
    offsets, items, counts = flat(sequences)
    follow = Counter((a, b) for s in sequences for a, b in pairwise(s) if a != b)
    row = np.array([follow[history[-1], b] if history else 0 for b in range(V + 1)], dtype=float)
    shares = row / max(1.0, row.sum())
    scores = markov(offsets, items, counts)(padded(history))[0]
    np.testing.assert_allclose(scores, shares)
    popular = markov(offsets, items, counts, ties="popular")(padded(history))[0]
    first = markov(offsets, items, counts, ties="first")(padded(history))[0]
    seen_first = list(follow)
    for a in range(1, V + 1):
        for b in range(1, V + 1):
            if row[a] > row[b]:  # a tie-break never overrules a count
                assert popular[a] > popular[b]
                assert first[a] > first[b]
            elif row[a] == row[b]:
                assert (popular[a] > popular[b]) == (counts[a] > counts[b])
                if row[a]:
                    earlier = seen_first.index((history[-1], a)) < seen_first.index(
                        (history[-1], b)
                    )
                    assert (first[a] > first[b]) == earlier


def test_popularity_is_the_count_and_prefers_the_lower_id_when_asked() -> None:
    counts = np.array([0, 2, 5, 5])
    windows = np.zeros((2, 3), dtype=np.int32)
    np.testing.assert_array_equal(popularity(counts)(windows), [[0, 2, 5, 5]] * 2)
    scores = popularity(counts, ties="first")(windows)[0]
    assert scores[2] > scores[3] > scores[1]


def test_pairs_do_not_cross_users() -> None:
    offsets, items, _ = flat([[1, 2], [3, 4]])
    table = count_pairs(offsets, items, n_items=V, weights=[1.0, 1.0, 1.0])
    assert {(int(a), int(b)) for a, b in zip(*table.nonzero(), strict=True)} == {(1, 2), (3, 4)}


def test_an_empty_history_scores_nothing() -> None:
    offsets, items, counts = flat([[1, 2, 3]])
    assert not neighbours(offsets, items, counts, CONFIG)(padded([])).any()
    assert not markov(offsets, items, counts)(padded([])).any()


def test_impossible_settings_are_refused() -> None:
    values = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    for change, message in (
        ({"gap_decay": 0.0}, "gap_decay is 0"),
        ({"history_decay": 1.5}, "history_decay is 1.5"),
        ({"backward": -1.0}, "backward is -1"),
        ({"max_gap": 0}, "max_gap is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            NeighbourConfig(**(values | change))
    with pytest.raises(ValueError, match="ties is 'random'"):
        popularity(np.array([0, 1]), ties="random")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def beauty(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Histories:
    raw = read_raw(shared_data / "beauty", "lines")
    folder = tmp_path_factory.mktemp("beauty")
    return build_histories(folder, raw.rows, raw.items, split="last", made={})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "filter_seen", "wanted"),
    [
        # Published and calibration figures, R@10 and NDCG@10, with the tie rule that gives them.
        ("popularity, first", True, (0.0115, 0.0055)),
        ("popularity, shared", True, (0.0110, 0.0053)),
        ("markov, first", False, (0.0597, 0.0404)),
        ("markov, shared", True, (0.0596, 0.0399)),
        ("markov, popular", True, (0.0666, 0.0439)),
        ("item-kNN", True, (0.0849, 0.0539)),
    ],
)
def test_counting_on_beauty_gives_the_published_figures(
    beauty: Histories, row: str, filter_seen: bool, wanted: tuple[float, float]
) -> None:
    offsets, items = training_part(beauty)
    kind, _, ties = row.partition(", ")
    if kind == "item-kNN":
        scorer = neighbours(offsets, items, beauty.counts, CONFIG)
    elif kind == "markov":
        scorer = markov(offsets, items, beauty.counts, ties=ties)  # type: ignore[arg-type]
    else:
        scorer = popularity(beauty.counts, ties=ties)  # type: ignore[arg-type]
    test = beauty.targets["test"]
    ranks = rank_scorer(beauty, test, scorer, max_len=50, filter_seen=filter_seen)
    reached = hit(ranks, 10).mean(), ndcg(ranks, 10).mean()
    assert reached == pytest.approx(wanted, abs=5.1e-5)


@pytest.mark.slow
def test_shuffled_training_part_destroys_the_chain(beauty: Histories) -> None:
    """Negative control: the same counts in random order must fall to a fraction."""
    offsets, items = training_part(beauty)
    shuffled = np.random.default_rng(0).permutation(items)
    scorer = markov(offsets, shuffled, beauty.counts, ties="popular")
    ranks = rank_scorer(beauty, beauty.targets["test"], scorer, max_len=1, filter_seen=True)
    assert hit(ranks, 10).mean() < 0.02
