"""Rungs on one log: trees, networks, gates, blends, refits; what a rung leaves can be read back."""

import re
from dataclasses import replace

import numpy as np
import pytest

from lib.evaluate.clicks import shift_prior
from lib.studies.blend import blend_rungs, calibrate_rung, confusion_table, distribution_gate
from lib.studies.click_view import ViewSettings, view_clicks
from lib.studies.clicks import LossSettings, sigmoid
from lib.studies.climb import (
    Recipe,
    choose_batch,
    choose_by_gate,
    read_recipe,
    resolve_fields,
    train_recipe,
    train_variants,
    vary,
)  # fmt: skip
from lib.studies.crossfit import Folds, make_protocol
from lib.studies.gbdt import TreeSettings, cross_validate_trees, importance_table
from lib.studies.judging import ask_gate, judge_rungs
from lib.studies.ladder import decide_line, ladder_table, share_of_the_way
from lib.studies.refit import join, refit
from lib.studies.retrieval import ask_both, ask_recall, list_catalogue, recall_hits, train_towers
from lib.studies.rungs import make_rung, open_rung, save_rung
from lib.train.plan import Plan
from tests.studies.clicklog import Log

PLAN = Plan(learning_rate=0.02, seed=1, epochs=2, batch=200, metric="score", precision="float32")
RECIPE = Recipe(
    kind="dcnv2", model={"d_embedding": 4, "n_cross": 1, "hidden": [8], "dropout": 0.0},
    plan=PLAN, loss=LossSettings(kind="weighted"), new_below=3,
)  # fmt: skip
SMALL = TreeSettings(rounds=30, leaves=5, least_in_leaf=5, threads=1)


def rung_of(log, noise, name="model", seed=1):
    """A rung that knows the log's truth up to noise on the logit."""
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    rng = np.random.default_rng(seed)
    truth = np.log(log.p / (1 - log.p)) + noise * rng.standard_normal(len(log))
    rows = protocol.rows
    folds = Folds(rows, log.fold[rows], truth[rows], truth[None, protocol.holdout],
                  truth[None, protocol.test], 1.0, [1], 10, [[0.1]], {}, {})  # fmt: skip
    return make_rung(name, folds, log, protocol, new_below=3)


@pytest.mark.parametrize("boosting", ["gbdt", "dart"])  # DART shrinks a start kept in a tree
@pytest.mark.parametrize("weighting", ["class weight", "balanced", "none"])
def test_trees_state_the_true_probability_under_every_weighting(weighting, boosting):
    log = Log(2000)
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    view = view_clicks(log, ViewSettings())
    folds = cross_validate_trees(view, protocol, TreeSettings(
        rounds=60, leaves=5, weighting=weighting, learning_rate=0.1, boosting=boosting,
        threads=1))  # fmt: skip
    stated = sigmoid(folds.logits)
    assert stated.mean() == pytest.approx(log.label[folds.rows].mean(), abs=0.05)
    assert np.corrcoef(stated, log.p[folds.rows])[0, 1] > 0.8
    top = importance_table(folds, view)
    assert set(top["feature"][:2]) == {"slot", "x1"}  # what the labels follow


def test_trees_repeat_bit_by_bit_keep_their_text_and_dart_runs_all_rounds(tmp_path):
    log = Log(400)
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    view = view_clicks(log, ViewSettings())
    one = cross_validate_trees(view, protocol, SMALL, scratch=tmp_path)
    two = cross_validate_trees(view, protocol, SMALL)
    np.testing.assert_array_equal(one.logits, two.logits)
    assert (tmp_path / "fold-0" / "model" / "trees.txt").read_text().startswith("tree")
    dart = TreeSettings(rounds=7, leaves=5, least_in_leaf=5, threads=1, boosting="dart")
    assert cross_validate_trees(view, protocol, dart).epochs == [7, 7, 7]


def test_a_rung_is_read_back_as_it_was_saved(tmp_path):
    rung = rung_of(Log(300), 0.5)
    decision = ask_gate("g", "score +0", rung, rung, draws=20, seed=1)
    save_rung(tmp_path, rung, config={"a": 1}, decisions={"g": decision})
    again, decisions = open_rung(tmp_path)
    np.testing.assert_array_equal(again.oof.logits, rung.oof.logits)
    np.testing.assert_array_equal(again.holdout.segment, rung.holdout.segment)
    assert (again.name, again.rate, again.epochs) == (rung.name, rung.rate, rung.epochs)
    assert decisions["g"]["answer"] == decision.answer
    for name in ("config.json", "statistics.json", "oof.parquet", "holdout.parquet", "test.npy"):
        assert (tmp_path / name).is_file()
    (tmp_path / "oof.parquet").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"oof\.parquet"):
        open_rung(tmp_path)


def test_segments_follow_the_length_of_the_history():
    log = Log(200)
    rung = rung_of(log, 0.5)
    np.testing.assert_array_equal(rung.oof.segment == "new", log.lengths[rung.oof.rows] < 3)
    assert rung.segments == ["all", "new", "returning"]
    assert rung_of(Log(200, sequence=False), 0.5).segments == ["all"]


def test_a_gate_adopts_a_clear_gain_and_not_a_clear_loss():
    log = Log(3000)
    good, bad = rung_of(log, 0.1, "good"), rung_of(log, 2.0, "bad")
    rule = "average_precision +0.010 or weighted_log_loss -2%"
    assert ask_gate("a", rule, bad, good, draws=60, seed=1).answer == "adopted"
    assert ask_gate("a", rule, good, bad, draws=60, seed=1).answer == "not adopted"
    close = ask_gate("a", "score +0", good, rung_of(log, 0.12, "close", seed=2), draws=60, seed=1)
    assert close.answer == "not decidable"
    by_segment = ask_gate("d", "average_precision.new +0", bad, good, draws=60, seed=1)
    assert by_segment.shown[0].n == int((good.oof.segment == "new").sum())


def test_a_gate_refuses_rungs_of_different_data():
    with pytest.raises(ValueError, match="judge different rows"):
        ask_gate("a", "score +0", rung_of(Log(300), 1), rung_of(Log(400), 1), draws=10, seed=1)


def test_a_tie_keeps_the_first_variant_and_the_larger_batch():
    log = Log(600)
    same = {"plain": rung_of(log, 0.5, "plain"), "other": rung_of(log, 0.5, "other")}
    assert choose_by_gate(same, "score +0", draws=30, seed=1)[0] == "plain"
    worse = {4096: rung_of(log, 3.0, "4096"), 512: rung_of(log, 0.1, "512")}
    assert choose_batch(worse, "score +0", draws=60, seed=1)[0] == 512
    equal = {4096: rung_of(log, 0.5, "4096"), 512: rung_of(log, 0.5, "512")}
    assert choose_batch(equal, "score +0", draws=30, seed=1)[0] == 4096


def test_a_variant_changes_what_it_names_and_survives_json():
    changed = vary(RECIPE, {"d_embedding": 8, "batch": 64, "loss": "focal", "rare": 3,
                            "crosses": [["slot", "ad"]], "kind": "deepfm"})  # fmt: skip
    assert changed.model == {**RECIPE.model, "d_embedding": 8}
    assert changed.plan.batch == 64
    assert (changed.loss.kind, changed.kind) == ("focal", "deepfm")
    assert changed.view == ViewSettings(rare=3, crosses=(("slot", "ad"),))
    record = changed.record()
    record["view"]["crosses"] = [list(pair) for pair in record["view"]["crosses"]]  # as JSON does
    assert read_recipe(record) == changed
    with pytest.raises(ValueError, match="'nobody' is no field"):
        resolve_fields({"target_field": "nobody"}, ("slot", "ad"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "model", "max_len"),
    [
        ("dcnv2", {"d_embedding": 4, "n_cross": 1, "hidden": [8], "dropout": 0.0}, 0),
        ("xdeepfm", {"d_embedding": 4, "maps": [3], "hidden": [8], "dropout": 0.0}, 0),
        ("ft_transformer", {"d_embedding": 8, "n_blocks": 2, "n_heads": 2, "numeric": "quantile",
                            "attention_dropout": 0.0, "ffn_dropout": 0.0, "mixout": 0.1}, 0),
        ("din", {"d_embedding": 4, "attention_hidden": [4], "hidden": [8], "dropout": 0.0,
                 "target_field": "ad", "softmax": True}, 3),
    ],
)  # fmt: skip
def test_every_network_of_the_ladder_learns_more_than_chance(kind, model, max_len):
    log = Log(1500)
    # A stack of norms of four numbers learns nothing at the rate that suits a table of ids.
    rate = 0.005 if kind == "ft_transformer" else 0.02
    plan = Plan(learning_rate=rate, seed=1, epochs=8, batch=200, metric="score",
                precision="float32")  # fmt: skip
    recipe = Recipe(kind=kind, model=model, plan=plan, loss=LossSettings(kind="weighted"),
                    max_len=max_len, new_below=3)  # fmt: skip
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    rung = train_recipe(kind, recipe, log, protocol)
    judged = judge_rungs([rung], draws=20, seed=1)
    own = next(j for j in judged if j.part == "out of fold" and j.segment == "all")
    assert own.values["auc"] > 0.7
    assert len(own.intervals) == 5


def test_an_equal_recipe_is_not_trained_again_which_would_only_repeat_it():
    log = Log(600)
    protocol = make_protocol(log, choose_share=0.2, seed=1).first(1)
    first = train_recipe("first", RECIPE, log, protocol)
    recipes = {"same": vary(RECIPE, {"d_embedding": 4}), "other": vary(RECIPE, {"d_embedding": 2})}
    found = train_variants(recipes, log, protocol, known=[(RECIPE, first)])
    assert found["same"].name == "same"
    assert found["same"].oof is first.oof
    assert (found["other"].oof.logits != first.oof.logits).any()
    np.testing.assert_array_equal(
        train_recipe("n", RECIPE, log, protocol).oof.logits, first.oof.logits
    )


def test_calibration_repairs_an_overconfident_rung_and_leaves_its_order():
    log = Log(3000)
    rung = rung_of(log, 0.0)
    hot = rung.__class__(**{**rung.__dict__, "oof": rung.oof.__class__(
        rows=rung.oof.rows, labels=rung.oof.labels, segment=rung.oof.segment,
        logits=4 * rung.oof.logits)})  # fmt: skip
    found = calibrate_rung(hot)
    assert found.chosen in ("temperature", "isotonic")
    assert found.losses[found.chosen] < found.losses["none"]
    assert set(found.by_fold) == {"fold 0", "fold 1", "fold 2"}
    before, after = hot.balanced(hot.oof.logits), found.rung.balanced(found.rung.oof.logits)
    truth = shift_prior(log.p[rung.oof.rows], rung.rate)
    assert np.abs(after - truth).mean() < np.abs(before - truth).mean() / 2


def test_calibration_of_a_fold_never_reads_its_labels():
    log = Log(600)
    rung = rung_of(log, 0.5)
    own = rung.fold == 1
    labels = np.where(own, 1 - rung.oof.labels, rung.oof.labels).astype(np.int8)
    part = rung.oof.__class__(rows=rung.oof.rows, labels=labels, segment=rung.oof.segment,
                              logits=rung.oof.logits)  # fmt: skip
    flipped = rung.__class__(**{**rung.__dict__, "oof": part})
    one, two = calibrate_rung(rung).rung.oof.logits, calibrate_rung(flipped).rung.oof.logits
    np.testing.assert_array_equal(one[own], two[own])


def test_a_published_split_with_one_fold_is_calibrated_and_joined_by_its_other_half():
    log = Log(800)
    many = {"a": rung_of(log, 1.0, "a", 1), "b": rung_of(log, 1.0, "b", 2)}
    rungs = {n: replace(rung, fold=np.zeros_like(rung.fold)) for n, rung in many.items()}
    even = np.arange(len(rungs["a"].fold)) % 2 == 0
    labels = np.where(even, 1 - rungs["a"].oof.labels, rungs["a"].oof.labels).astype(np.int8)
    flipped = replace(rungs["a"], oof=replace(rungs["a"].oof, labels=labels))
    one, two = calibrate_rung(rungs["a"]).rung.oof.logits, calibrate_rung(flipped).rung.oof.logits
    np.testing.assert_array_equal(one[even], two[even])
    assert not np.array_equal(one[~even], two[~even])
    blends, _ = blend_rungs(rungs, temperature=0.01)
    assert all(np.isfinite(blend.oof.logits).all() for blend in blends.values())


def test_blends_are_no_worse_than_their_members_here_and_can_be_made_again_from_json():
    log = Log(3000)
    rungs = {"a": rung_of(log, 1.0, "a", 1), "b": rung_of(log, 1.0, "b", 2)}
    calibrated = {name: calibrate_rung(rung) for name, rung in rungs.items()}
    blends, weights = blend_rungs({n: c.rung for n, c in calibrated.items()}, temperature=0.01)
    judged = judge_rungs([*rungs.values(), *blends.values()], draws=10, seed=1)
    scores = {j.rung: j.values["score"] for j in judged
              if j.part == "out of fold" and j.segment == "all"}  # fmt: skip
    for kind in blends:
        assert scores[kind] > max(scores["a"], scores["b"])
        told = {"kind": kind, "members": ["a", "b"], "weights": weights[kind],
                "calibrators": {n: c.record() for n, c in calibrated.items()}}  # fmt: skip
        logits = {name: rung.holdout.logits for name, rung in rungs.items()}
        again = join(told, logits, rungs["a"].rate)
        np.testing.assert_allclose(again, sigmoid(blends[kind].holdout.logits), atol=1e-6)


def test_the_distribution_gate_passes_the_true_output_and_confusion_costs_score():
    log = Log(3000)
    rung = rung_of(log, 0.1)
    gate = distribution_gate(rung, mean_within=0.02, least_spread=0.05)
    assert gate["passes"].to_list() == [True, False]
    costs = confusion_table(rung)
    assert costs["log loss"][0] < costs["log loss"][1]
    assert costs["score"][0] < costs["score"][1]


def test_the_truth_itself_goes_the_whole_way_and_a_constant_none():
    log = Log(3000)
    truth = rung_of(log, 0.0, "truth")
    known = {"out of fold": log.p[truth.oof.rows]}
    way = share_of_the_way([truth], known, draws=30, seed=1)
    assert way["share"][0] == pytest.approx(1)
    flat = truth.__class__(**{**truth.__dict__, "oof": truth.oof.__class__(
        rows=truth.oof.rows, labels=truth.oof.labels, segment=truth.oof.segment,
        logits=np.full(len(truth.oof.rows), np.log(truth.rate / (1 - truth.rate))))})  # fmt: skip
    assert share_of_the_way([flat], known, draws=30, seed=1)["share"][0] == pytest.approx(0)


def test_the_ladder_tells_the_least_favourable_answer_and_its_reason(tmp_path):
    log = Log(600)
    first, second = rung_of(log, 2.0, "first"), rung_of(log, 0.1, "second")
    decision = ask_gate("second against first, out of fold", "score +0", first, second, draws=40,
                        seed=1)  # fmt: skip
    save_rung(tmp_path / "one", first, config={})
    save_rung(tmp_path / "two", second, config={}, decisions={decision.gate: decision})
    opened = {name: open_rung(tmp_path / name) for name in ("one", "two")}
    judged = judge_rungs([rung for rung, _ in opened.values()], draws=20, seed=1)
    table = ladder_table(opened, judged)
    assert table["decision"].to_list() == ["start", "adopted"]
    assert re.search(r"score \+0: \+0\.\d+ \[", table["reason"][1])
    shown = [{"value": 0.1, "low": 0.0, "high": 0.2}]
    answers = {"a": {"answer": "adopted", "rule": "x +0", "shown": shown}}
    worse = answers | {"b": {"answer": "not decidable", "rule": "x +0", "shown": shown}}
    assert decide_line(worse)[:2] == ("b", "not decidable")
    assert decide_line(worse)[2].endswith("; asked as well: a: adopted")


def test_towers_rank_every_ad_and_recall_counts_clicked_rows():
    log = Log(600)
    recipe = Recipe(
        kind="two_tower",
        model={"d_embedding": 4, "hidden": [8], "d_out": 4, "temperature": 0.2, "dropout": 0.0},
        plan=Plan(learning_rate=0.02, seed=1, epochs=2, batch=100, precision="float32"),
        loss=LossSettings(kind="plain"), max_len=3, new_below=3,
    )  # fmt: skip
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    folds, catalogue = train_towers(recipe, log, ("ad",), protocol, click_weight=1.0)
    assert catalogue.shown.sum() == len(log.rows("train"))
    ranks = folds.columns["rank"][0]
    assert ranks.min() >= 1
    assert ranks.max() <= len(catalogue.shown) + 1
    hits = recall_hits(folds, log, catalogue, [1, 6])
    clicked = int((log.label[folds.rows] > 0).sum())
    for each in hits.values():
        assert len(each[1]) == clicked
        assert each[1].sum() <= each[6].sum()
        assert each[6].all()  # six ads in all
    decision = ask_recall("recall@1 +0", hits, draws=50, seed=1)
    assert ask_both(decision, decision) == decision.answer


def test_popular_ads_are_ranked_by_clicks_of_the_other_folds():
    log = Log(300)
    catalogue = list_catalogue(log, ("ad",))
    rows = log.rows("train")
    folds = Folds(rows, log.fold[rows], np.zeros(len(rows)), np.zeros((1, 0)), np.zeros((1, 0)),
                  0.0, [1], 1, [], {"rank": (np.ones(len(rows)),) * 3}, {})  # fmt: skip
    found = recall_hits(folds, log, catalogue, [1])["most clicked"][1]
    expected = []
    for row in rows[log.label[rows] > 0]:
        others = rows[(log.label[rows] > 0) & (log.fold[rows] != log.fold[row])]
        counts = np.bincount(log.categorical[others, 1] - 10, minlength=6)
        expected.append(counts[log.categorical[row, 1] - 10] == counts.max())
    assert abs(int(found.sum()) - int(np.sum(expected))) <= 3  # ties are broken by showings


def test_a_refit_on_all_rows_predicts_what_its_folds_did(tmp_path):
    log = Log(1500)
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    rung = train_recipe("m", RECIPE, log, protocol)
    said = refit(RECIPE.record(), rung.epochs, log, log.rows("train"), protocol.holdout,
                 folder=tmp_path / "m")  # fmt: skip
    assert np.corrcoef(said, rung.holdout.logits)[0, 1] > 0.8
    assert (tmp_path / "m" / "weights.safetensors").is_file()
    trees = refit({"trees": SMALL.record(), "drop": []}, [20, 20], log, log.rows("train"),
                  protocol.holdout, folder=tmp_path / "t")  # fmt: skip
    assert np.corrcoef(trees, log.p[protocol.holdout])[0, 1] > 0.7
    assert (tmp_path / "t" / "trees.txt").is_file()
