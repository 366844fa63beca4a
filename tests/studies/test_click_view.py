"""A feature step changes what a batch holds, never the data, and never by looking at a label."""

import numpy as np
import pytest

from lib.studies.click_view import ViewSettings, append_numbers, view_clicks
from tests.studies.clicklog import Log


def test_without_a_step_nothing_changes():
    log = Log(100)
    view = view_clicks(log, ViewSettings())
    rows = np.array([3, 0, 99])
    assert view.layout == log.layout
    np.testing.assert_array_equal(view.take(rows).categorical, log.take(rows).categorical)
    np.testing.assert_array_equal(view.take(rows).numeric, log.take(rows).numeric)


def test_dropped_columns_are_gone_and_a_pattern_without_a_match_is_refused():
    view = view_clicks(Log(50), ViewSettings(drop=("x[12]",)))
    assert view.layout.numeric_names == ("x3",)
    np.testing.assert_array_equal(view.take([7]).numeric, Log(50).numeric[7:8, 2:])
    with pytest.raises(ValueError, match="'y\\*' is no numeric column"):
        view_clicks(Log(50), ViewSettings(drop=("y*",)))


def test_rare_ids_join_the_rare_id_of_their_field():
    log = Log(300)
    train = log.rows("train")
    counts = np.bincount(log.categorical[train].ravel(), minlength=16)
    least = int(np.median(counts))
    view = view_clicks(log, ViewSettings(rare=least))
    ids = view.take(np.arange(300)).categorical
    for field, offset in enumerate(log.offsets):
        start = int(view.layout.field_offsets[field])
        for row in range(300):
            old = log.categorical[row, field]
            if old - offset > 1 and counts[old] < least:
                assert ids[row, field] == start + 1
        kept = {int(o): int(n) for o, n in zip(log.categorical[:, field], ids[:, field], strict=True)
                if n != start + 1}  # fmt: skip
        assert len(set(kept.values())) == len(kept)  # the others stay apart
    assert ids.max() < sum(view.layout.field_sizes)


def test_a_cross_has_an_id_per_frequent_pair_and_the_rare_id_for_others():
    log = Log(400)
    view = view_clicks(log, ViewSettings(crosses=(("slot", "ad"),), cross_rare=6))
    train = log.rows("train")
    ids = view.take(np.arange(400)).categorical[:, 2]
    start = int(view.layout.field_offsets[2])
    pairs = [tuple(row) for row in log.categorical.tolist()]
    seen = {}
    for pair in [pairs[row] for row in train]:
        seen[pair] = seen.get(pair, 0) + 1
    found = {}
    for pair, number in zip(pairs, ids.tolist(), strict=True):
        if seen.get(pair, 0) >= 6:
            assert found.setdefault(pair, number) == number > start + 1
        else:
            assert number == start + 1
    assert len(set(found.values())) == len(found) == view.layout.field_sizes[2] - 2
    assert view.layout.fields[2] == "slot×ad"


def test_labels_play_no_part():
    first, second = Log(200), Log(200)
    second.label = 1 - second.label
    settings = ViewSettings(rare=5, crosses=(("slot", "ad"),))
    one, two = view_clicks(first, settings), view_clicks(second, settings)
    np.testing.assert_array_equal(one.take(np.arange(200)).categorical,
                                  two.take(np.arange(200)).categorical)  # fmt: skip


def test_appended_numbers_are_standardised_over_training_rows():
    log = Log(100)
    view = append_numbers(view_clicks(log, ViewSettings()), {"score": 5 + 2 * np.arange(100.0)})
    assert view.layout.numeric_names[-1] == "score"
    found = view.take(log.rows("train")).numeric[:, -1]
    assert found.mean() == pytest.approx(0, abs=1e-5)
    assert found.std() == pytest.approx(1, abs=1e-5)
