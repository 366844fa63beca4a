"""Tables of rows: paired by user, spread by seed, refused when they cannot be paired."""

import numpy as np
import pytest

from lib.studies.compare import compare_rows, compare_segments, measure

RANKS = {
    "base": np.array([[1.0, 4.0, 30.0, 2.0]]),
    "better": np.array([[1.0, 1.0, 3.0, 2.0], [1.0, 2.0, 40.0, 1.0]]),
}


def test_values_are_means_over_users_and_seeds_by_hand():
    table = compare_rows(RANKS, ["hit@3", "ndcg@10"], against="base", draws=500)
    line = table.filter((table["row"] == "better") & (table["measure"] == "hit@3")).row(
        0, named=True
    )
    assert line["value"] == pytest.approx((4 + 3) / 8)
    assert line["difference"] == pytest.approx((4 + 3) / 8 - 2 / 4)
    assert line["seeds"] == 2
    assert line["seed_spread"] == pytest.approx(np.std([1.0, 0.75], ddof=1))
    base = table.filter((table["row"] == "base") & (table["measure"] == "ndcg@10")).row(
        0, named=True
    )
    assert base["value"] == pytest.approx((1 + 1 / np.log2(5) + 0 + 1 / np.log2(3)) / 4)
    assert base["difference"] is None
    assert base["p_holm"] is None


def test_order_of_users_and_of_seeds_does_not_matter():
    order = np.array([2, 0, 3, 1])
    moved = {row: table[::-1, order] for row, table in RANKS.items()}
    for name in ("hit@1", "ndcg@5"):
        for row in RANKS:
            assert measure(moved[row], name).mean() == pytest.approx(
                measure(RANKS[row], name).mean()
            )


def test_segments_hold_all_users_once():
    labels = {"popularity": np.array(["0", "1-4", "100+", "1-4"])}
    table = compare_segments(RANKS, labels, name="hit@3", against="base", draws=100)
    base = table.filter(table["row"] == "base")
    assert base["segment"].to_list() == ["0", "1-4", "100+"]
    assert base["n"].sum() == 4
    assert (base["value"] * base["n"]).sum() / 4 == pytest.approx(0.5)


def test_rows_over_different_users_or_an_unknown_baseline_are_refused():
    with pytest.raises(ValueError, match="same targets"):
        compare_rows({**RANKS, "other": np.ones(3)}, ["hit@1"], against="base")
    with pytest.raises(ValueError, match="'nobody' is not among"):
        compare_rows(RANKS, ["hit@1"], against="nobody")
    with pytest.raises(ValueError, match="ndcg@10"):
        measure(RANKS["base"], "auc")
