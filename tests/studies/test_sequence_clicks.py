"""A fold killed in the middle ends with the same bits, a finished one stays, checkpoints come back."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from lib.evaluate.calibration import fit_temperature
from lib.studies import diagnosis
from lib.studies.blending import open_entries, score_entries, weight_curves
from lib.studies.crossfit import collect_models
from lib.studies.inferring import calibrate, fold_scores, judge_blends
from lib.studies.rungs import save_rung
from lib.studies.sequence_clicks import (
    open_checkpoints,
    sequence_model,
    without_covisits,
    write_train_log,
)
from lib.studies.submissions import write_submission
from tests.studies import sequence_runs as runs
from tests.studies.clicklog import Log


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the killed process: sums are split by threads
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    log = Log(400)
    rung, recipe = runs.train(folder / "scratch", log)
    collect_models(folder / "scratch" / "model", folder / "rung" / "models")
    save_rung(folder / "rung", rung, config=recipe.record())
    return folder, log, rung


@pytest.mark.slow
def test_a_fold_killed_in_the_middle_ends_with_the_same_bits_and_finished_folds_stay(tmp_path):
    whole, _ = runs.train(tmp_path / "whole", Log(400))
    command = [sys.executable, "-m", "tests.studies.sequence_runs", str(tmp_path / "killed")]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    folds = tmp_path / "killed" / "model"
    assert (folds / "fold-0" / "done.json").is_file()
    at = json.loads((folds / "fold-1" / "checkpoint.json").read_text())["step"]
    assert at > 0
    assert not (folds / "fold-1" / "done.json").exists()
    kept = (folds / "fold-0" / "left.npy").stat().st_mtime_ns
    calls = []
    resumed, _ = runs.train(tmp_path / "killed", Log(400), report=lambda *_, **__: calls.append(1))
    for name in ("oof", "holdout"):
        np.testing.assert_array_equal(getattr(resumed, name).logits, getattr(whole, name).logits)
    np.testing.assert_array_equal(resumed.test, whole.test)
    assert (folds / "fold-0" / "left.npy").stat().st_mtime_ns == kept


def test_finished_folds_are_not_trained_again(trained, monkeypatch):
    folder, log, rung = trained
    monkeypatch.setattr("lib.studies.crossfit.fit_click_model", None)
    again, _ = runs.train(folder / "scratch", log)
    np.testing.assert_array_equal(again.oof.logits, rung.oof.logits)


def test_checkpoints_predict_what_training_wrote_down(trained):
    folder, log, rung = trained
    checkpoints = open_checkpoints(folder / "rung", log)
    assert len(checkpoints.models) == 3
    held = checkpoints.logits(rung.holdout.rows).mean(axis=0)
    np.testing.assert_allclose(held, rung.holdout.logits, rtol=1e-6)


def test_no_checkpoints_says_which_command_trains_them(trained, tmp_path):
    _, log, rung = trained
    with pytest.raises(FileNotFoundError, match=r"60_train_dare_qnn.*python run_all\.py"):
        open_checkpoints(tmp_path / "nowhere", log)
    save_rung(tmp_path / "bare", rung, config={"kind": "dare"})
    with pytest.raises(FileNotFoundError, match=r"no checkpoints found in 'bare'.*run_all\.py"):
        open_checkpoints(tmp_path / "bare", log)


def test_checkpoints_of_other_data_are_refused(trained):
    folder, *_ = trained
    other = Log(400)
    other.layout = replace(other.layout, n_tokens=20)
    with pytest.raises(ValueError, match="trained on another dataset"):
        open_checkpoints(folder / "rung", other)


def test_every_validation_of_every_fold_is_in_the_log(trained, tmp_path):
    folder, *_ = trained
    write_train_log(tmp_path / "log.csv", folder / "scratch", {"model": "DARE"})
    log = pl.read_csv(tmp_path / "log.csv")
    assert log["fold"].unique().sort().to_list() == [0, 1, 2]
    assert {"variant", "epoch", "loss", "score", "loss_auxiliary"} <= set(log.columns)


@pytest.mark.slow
def test_the_sampler_changes_batches_but_not_what_a_logit_means():
    log = Log(3000)
    rung, _ = runs.train(None, log, positive_fraction=0.5, epochs=4, learning_rate=0.02)
    stated = 1 / (1 + np.exp(-rung.oof.logits))
    assert stated.mean() == pytest.approx(log.label[rung.oof.rows].mean(), abs=0.05)


def test_without_history_the_head_stands_alone_and_settings_are_checked():
    head = {"kind": "qnn", "n_layers": 1}
    plain = {"d_embedding": 4, "dropout": 0.1}
    off = {"hidden": [], "weight": 0.1}
    assert sequence_model({}, {}, head, off, max_len=0, **plain) == (
        "qnn", {"n_layers": 1, "d_embedding": 4}, 0.0,
    )  # fmt: skip
    kind, model, weight = sequence_model({"top_k": 3}, {}, head, off, max_len=9, **plain)
    assert (kind, model["auxiliary_hidden"], weight) == ("dare", None, 0.0)
    with pytest.raises(ValueError, match=r"\['n_blocks'\] stand in both"):
        sequence_model({"n_blocks": 1}, {"n_blocks": 0}, head, off, max_len=9, **plain)
    with pytest.raises(ValueError, match="expected the keys hidden and weight"):
        sequence_model({}, {}, head, {"layers": []}, max_len=9, **plain)


def test_covisits_are_left_out_only_where_they_are():
    log = Log(50)
    assert without_covisits(log, ["a"], False) == ("a",)
    log.layout = replace(log.layout, numeric_names=("x", "covisit:ad:sum", "y"))
    assert without_covisits(log, ["a"], False) == ("a", "covisit:*")
    assert without_covisits(log, ["a"], True) == ("a",)


def test_a_calibrator_is_judged_on_rows_it_never_saw(trained):
    *_, rung = trained
    p = rung.balanced(rung.holdout.logits)
    for fit_on in ("out of fold", "half of the hold-out"):
        found = calibrate(rung, p, "temperature", fit_on=fit_on, draws=50, seed=1)
        inner = len(rung.oof.labels) if fit_on == "out of fold" else len(p) // 2
        assert len(found.outer.labels) == (len(p) if fit_on == "out of fold" else len(p) - inner)
    own = found.outer
    flattered = fit_temperature(own.labels, own.logits, balanced=True)
    assert flattered != found.calibrator
    assert calibrate(rung, p, "none", fit_on=fit_on, draws=50, seed=1).calibrator([0.0])[0] == 0.5
    assert {row["calibrator"] for row in found.table().to_dicts()} >= {"none", "temperature"}


def test_folds_are_weighed_by_their_own_left_out_rows_and_blends_judged_on_one_set(trained):
    *_, rung = trained
    assert len(fold_scores(rung)) == 3
    p = rung.balanced(rung.holdout.logits)
    table = judge_blends(rung.holdout.labels, {"a": p, "b": p}, rate=rung.rate, draws=30, seed=1)
    assert table["score"][0] == table["score"][1]
    assert (table["score low"] <= table["score"]).all()


def entry(folder, ids, said, held, rows):
    folder.mkdir()
    write_submission(folder / "submission.csv", ids, said)
    frame = pl.DataFrame({"row": rows, "label": [0, 1, 0, 1], "clicked": held})
    frame.write_parquet(folder / "holdout.parquet")
    return folder


def test_entries_must_be_judged_on_the_same_rows(tmp_path):
    ids, said, held = ["a", "b"], [0.2, 0.4], [0.1, 0.9, 0.2, 0.6]
    first = entry(tmp_path / "x", ids, said, held, [1, 2, 3, 4])
    second = entry(tmp_path / "y", ids, said, held[::-1], [1, 2, 3, 4])
    entries = open_entries({"x": first, "y": second}, ids)
    curves = weight_curves(entries, 3)
    assert curves.filter(submission="x")["score"][2] == pytest.approx(score_entries(entries)[0])
    assert curves.filter(submission="x")["score"][0] == pytest.approx(score_entries(entries)[1])
    other = entry(tmp_path / "z", ids, said, held, [1, 2, 3, 9])
    with pytest.raises(ValueError, match="held-out rows of 'z'"):
        open_entries({"x": first, "z": other}, ids)
    (other / "holdout.parquet").unlink()
    assert open_entries({"x": first, "z": other}, ids).labels is None


def test_what_is_said_to_be_kept_is_what_the_encoder_keeps(trained):
    folder, log, rung = trained
    checkpoints = open_checkpoints(folder / "rung", log)
    rows = rung.holdout.rows[:40]
    row, ages, tokens, weights = diagnosis.attended(checkpoints, rows)
    lengths = np.minimum(log.lengths[rows], runs.MAX_LEN)
    assert len(row) == lengths.sum()
    np.testing.assert_array_equal(np.bincount(row, minlength=40), lengths)
    kept = np.bincount(row[~np.isnan(weights)], minlength=40)
    np.testing.assert_array_equal(kept, np.minimum(lengths, runs.TOP_K))
    sums = np.bincount(row, weights=np.nan_to_num(weights), minlength=40)
    np.testing.assert_allclose(sums[lengths > 0], 1, rtol=1e-5)
    newest = tokens[ages == 0]
    np.testing.assert_array_equal(
        newest, [log.tokens[r, n - 1] for r, n in zip(rows, lengths, strict=True) if n]
    )
    table = diagnosis.kept_by_age(checkpoints, rows)
    assert table["events"].sum() == lengths.sum()


def test_expected_and_observed_clicks_add_up_in_each_field_and_drift_is_zero_on_itself(trained):
    _, log, rung = trained
    table = diagnosis.calibration_by_segment(log, rung.holdout, ["slot"], min_rows=1)
    for _, part in table.group_by("field"):
        assert part["came"].sum() == (rung.holdout.labels > 0).sum()
        assert part["rows"].sum() == len(rung.holdout.rows)
    with pytest.raises(ValueError, match="'site' is no field: slot, ad"):
        diagnosis.calibration_by_segment(log, rung.holdout, ["site"], min_rows=1)
    still = diagnosis.drift_table(log, rung.holdout.rows, rung.holdout.rows)
    assert still["stability index"].drop_nulls().abs().max() < 1e-12
    assert still["shift"].drop_nulls().abs().max() < 1e-9
    truth = diagnosis.rung_of_probabilities(
        rung, "ceiling", log.p[rung.oof.rows], log.p[rung.holdout.rows]
    )
    np.testing.assert_allclose(
        1 / (1 + np.exp(-truth.holdout.logits)), log.p[rung.holdout.rows], rtol=1e-9
    )
