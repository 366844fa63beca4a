"""The leaderboard: paired on what all judged, corrected over the table, honest about gaps in it."""

import numpy as np
import polars as pl
import pytest

from lib.evaluate.uncertainty import paired_bootstrap
from lib.studies.leaderboard import (
    Contest,
    System,
    best_row,
    compare_pairs,
    hold_contest,
    judge,
    leaderboard,
    pair_systems,
    pareto_front,
)

DRAWS = 2_000


def contest(values, **more) -> Contest:
    n = np.atleast_2d(next(iter(values.values()))).shape[1] if values else 0
    settings = {"trivial": "trivial", "draws": DRAWS} | more
    return hold_contest("data", "hit@1", np.arange(n)[:, None], values, **settings)


def system(name, keys, answers) -> System:
    keys = np.asarray(keys, np.int64)
    return System(name=name, source=f"node of {name}", keys=keys.reshape(len(keys), -1),
                  answers=np.atleast_2d(np.asarray(answers, np.float64)))  # fmt: skip


@pytest.fixture
def known():
    """400 users: trivial .2, ceiling .8, a good and a bad system between, the good with two seeds."""
    draw = np.random.default_rng(3)
    chance = draw.random(400)
    hits = {name: (chance < share).astype(float) for name, share in
            {"trivial": 0.2, "bad": 0.3, "ceiling": 0.8}.items()}  # fmt: skip
    return hits | {"good": np.stack([(chance < 0.62), (chance < 0.58)]).astype(float)}


# pairing


def test_pairing_keeps_what_all_judged_and_puts_it_in_one_order():
    first = system("a", [[5, 1], [2, 0], [9, 3]], [50, 20, 90])
    second = system("b", [[9, 3], [7, 7], [5, 1]], [[91, 71, 51], [92, 72, 52]])
    keys, answers, counts = pair_systems([first, second])
    assert keys.tolist() == [[5, 1], [9, 3]]
    assert answers["a"].tolist() == [[50, 90]]
    assert answers["b"].tolist() == [[51, 91], [52, 92]]
    assert counts.select("row", "judged", "compared").rows() == [("a", 3, 2), ("b", 3, 2)]


def test_pairing_equals_a_dictionary_over_random_keys():
    draw = np.random.default_rng(0)
    systems, books = [], []
    for name in "abc":
        keys = draw.permutation(60)[:40]
        keys = np.stack([keys // 8, keys % 8], axis=1)
        answers = draw.random(40)
        systems.append(system(name, keys, answers))
        books.append({tuple(key): value for key, value in zip(keys.tolist(), answers, strict=True)})
    common = sorted(set.intersection(*(set(book) for book in books)))
    keys, answers, _ = pair_systems(systems)
    assert [tuple(key) for key in keys.tolist()] == common
    for each, book in zip(systems, books, strict=True):
        assert answers[each.name][0].tolist() == [book[key] for key in common]


def test_what_cannot_be_paired_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="no row was judged by all"):
        pair_systems([system("a", [1, 2], [1, 1]), system("b", [3], [1])])
    with pytest.raises(ValueError, match="names of their own"):
        pair_systems([system("a", [1], [1]), system("a", [1], [1])])
    with pytest.raises(ValueError, match="twice"):
        pair_systems([system("a", [1, 1], [1, 2])])


def test_no_system_at_all_makes_an_empty_table_and_one_stands_alone():
    keys, answers, counts = pair_systems([])
    assert (len(keys), answers, len(counts)) == (0, {}, 0)
    empty = contest({})
    assert len(leaderboard(empty)) == 0
    assert best_row(empty) is None
    alone = contest({"trivial": np.ones(5)})
    assert leaderboard(alone)["row"].to_list() == ["trivial"]
    assert best_row(alone) == "trivial"
    assert alone.gap is None


# values and shares


def test_shares_equal_loops_over_drawn_users(known):
    held = contest(known)
    board = {line["row"]: line for line in leaderboard(held).iter_rows(named=True)}
    means = {name: np.atleast_2d(table).mean(axis=0) for name, table in known.items()}
    low, high = means["trivial"].mean(), means["ceiling"].mean()
    assert board["good"]["share"] == pytest.approx((means["good"].mean() - low) / (high - low))
    assert (board["trivial"]["share"], board["ceiling"]["share"]) == (0.0, 1.0)
    draw, shares = np.random.default_rng(9), []
    for _ in range(4_000):
        rows = draw.integers(0, 400, 400)
        a, t, c = (means[name][rows].mean() for name in ("good", "trivial", "ceiling"))
        shares.append((a - t) / (c - t))
    expected = np.quantile(shares, [0.025, 0.975])
    found = [board["good"]["share_low"], board["good"]["share_high"]]
    # two bootstraps: an end is uncertain by about two standard errors / sqrt(draws) on each side
    assert found == pytest.approx(expected, abs=0.012)


def test_a_loss_has_the_same_share_as_its_mirror_image(known):
    up = contest(known)
    down = contest({name: 1 - np.asarray(t) for name, t in known.items()}, better="lower")
    shares = [dict(zip(*leaderboard(each).select("row", "share"), strict=True))
              for each in (up, down)]  # fmt: skip
    assert shares[0] == pytest.approx(shares[1])
    assert leaderboard(down)["row"].to_list()[0] == "ceiling"
    assert best_row(up) == best_row(down) == "good"


def test_without_a_ceiling_there_are_values_and_no_shares(known):
    known.pop("ceiling")
    board = leaderboard(contest(known))
    assert board["share"].null_count() == len(board)
    assert board["value"].null_count() == 0
    line = compare_pairs(contest(known), [("good", "bad")]).row(0, named=True)
    assert line["points"] is None
    assert line["gain"] > 0


def test_a_ceiling_that_is_not_above_the_trivial_row_gives_no_shares():
    draw = np.random.default_rng(1)
    values = {name: draw.random(50) for name in ("trivial", "ceiling", "a")}
    assert contest(values).gap is None


def test_seeds_are_averaged_user_by_user_and_their_spread_is_told(known):
    line = leaderboard(contest(known)).filter(row="good").row(0, named=True)
    assert line["seeds"] == 2
    assert line["seed_spread"] == pytest.approx(np.std(known["good"].mean(axis=1), ddof=1))


# differences


def test_differences_are_those_of_the_paired_bootstrap(known):
    line = compare_pairs(contest(known), [("good", "bad")]).row(0, named=True)
    twin = paired_bootstrap(known["good"].mean(axis=0), known["bad"], DRAWS, seed=5)
    assert line["gain"] == pytest.approx(twin.value)
    # the ends of two bootstraps of 2,000 draws differ by a twentieth of a standard error or so
    se = (twin.high - twin.low) / 4
    assert [line["low"], line["high"]] == pytest.approx([twin.low, twin.high], abs=0.25 * se)
    gap = known["ceiling"].mean() - known["trivial"].mean()
    assert line["points"] == pytest.approx(twin.value / gap)


def test_heaps_keep_the_interval_of_many_rows():
    draw = np.random.default_rng(2)
    values = {"trivial": np.zeros(12_000), "a": draw.random(12_000)}
    line = leaderboard(contest(values)).filter(row="a").row(0, named=True)
    se = values["a"].std() / np.sqrt(12_000)
    assert line["high"] - line["low"] == pytest.approx(2 * 1.96 * se, rel=0.08)


def test_swapping_a_pair_turns_the_sign_and_nothing_else(known):
    held = contest(known)
    there, back = (compare_pairs(held, [pair]).row(0, named=True)
                   for pair in (("good", "bad"), ("bad", "good")))  # fmt: skip
    assert (back["gain"], back["low"]) == pytest.approx((-there["gain"], -there["high"]))
    assert back["p"] == pytest.approx(there["p"])


def by_hand(p_values):
    """Holm (1979), step by step: the k-th smallest times what is left, never below the one before."""
    left, so_far, found = sorted(p_values), 0.0, {}
    for k, p in enumerate(left):
        so_far = max(so_far, min(1.0, p * (len(left) - k)))
        found[p] = so_far
    return [found[p] for p in p_values]


def test_the_whole_table_is_corrected_at_once_by_holm():
    p_values = [0.004, 0.03, 0.0006, 0.02, 0.9]
    lines = [{"data": "d", "row": f"r{i}", "against": "x", "gain": (-1.0) ** i, "p": p,
              "missing": None} for i, p in enumerate(p_values)]  # fmt: skip
    table = judge(pl.DataFrame([*lines, {"missing": "no result of y", "p": None}]), draws=10_000)
    assert table["p_holm"].to_list()[:-1] == pytest.approx(by_hand(p_values))
    assert table["p_holm"][-1] is None
    assert table["verdict"].to_list() == ["better", "no difference shown", "better",
                                          "no difference shown", "no difference shown",
                                          "not measured"]  # fmt: skip


def test_a_real_loss_is_called_worse(known):
    table = judge(compare_pairs(contest(known), [("bad", "good"), ("good", "good")]), draws=DRAWS)
    assert table["verdict"].to_list() == ["worse", "no difference shown"]


def test_a_missing_system_is_a_line_and_costs_the_others_nothing(known):
    held = contest(known)
    alone = judge(compare_pairs(held, [("good", "bad")]), draws=DRAWS)
    table = judge(compare_pairs(held, [("ghost", "bad"), ("good", "bad")]), draws=DRAWS)
    assert table["verdict"].to_list() == ["not measured", "better"]
    assert table["missing"][0] == "no result of ghost"
    assert table["p_holm"][1] == alone["p_holm"][0]


def test_too_few_draws_for_a_table_are_refused(known):
    pairs = [("good", "bad")] * 60
    with pytest.raises(ValueError, match="60 differences needs 2401"):
        judge(compare_pairs(contest(known), pairs), draws=2_000)


def test_nothing_is_shown_where_nothing_differs():
    """Under the null a table of 20 says "better" or "worse" in about one of twenty tables."""
    draw, alarms = np.random.default_rng(4), 0
    for _ in range(20):
        values = {f"s{i}": draw.normal(size=200) for i in range(21)}
        held = contest(values | {"trivial": np.zeros(200)})
        table = judge(compare_pairs(held, [(f"s{i}", "s20") for i in range(20)]), draws=DRAWS)
        alarms += bool((table["verdict"] != "no difference shown").any())
    assert alarms <= 5  # of 20 at a level of .05: six or more happen once in 3,000 times


# segments of a contest


def test_a_part_of_the_rows_is_a_contest_of_its_own(known):
    inside = np.arange(400) % 3 == 0
    part = contest(known).within(inside)
    assert part.mean("bad") == pytest.approx(known["bad"][inside].mean())
    assert part.drawn.shape == (DRAWS, len(known))


# the front


def test_the_front_by_brute_force_over_random_clouds_with_ties():
    draw = np.random.default_rng(7)
    for _ in range(60):
        n = int(draw.integers(1, 12))
        costs, gains = draw.integers(0, 5, n).astype(float), draw.integers(0, 5, n).astype(float)
        kept = pareto_front(costs, gains)

        def beats(j, i, costs=costs, gains=gains):
            as_good = costs[j] <= costs[i] and gains[j] >= gains[i]
            return as_good and (costs[j] < costs[i] or gains[j] > gains[i])

        dominated = [any(beats(j, i) for j in range(n)) for i in range(n)]
        assert kept.tolist() == [not each for each in dominated]
        for i in np.flatnonzero(~kept):  # who is dropped is beaten by one who stays
            assert any(beats(j, i) for j in np.flatnonzero(kept))


def test_no_cost_or_no_gain_is_not_on_the_front_and_hides_nobody():
    nan = float("nan")
    assert pareto_front([nan, 1.0, 2.0], [9.0, nan, 0.5]).tolist() == [False, False, True]
    assert pareto_front([], []).tolist() == []
    with pytest.raises(ValueError, match="one of each"):
        pareto_front([1.0], [1.0, 2.0])
