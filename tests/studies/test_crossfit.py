"""Folds that never see themselves, epochs chosen on rows that never judge, finished folds kept."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib.studies.clicks import LossSettings, predict_logits
from lib.studies.crossfit import collect_models, cross_validate, make_protocol
from lib.train.plan import Plan
from tests.studies.clicklog import Log

PLAN = Plan(learning_rate=0.05, seed=1, epochs=4, batch=100, metric="score", precision="float32")
PLAIN = LossSettings(kind="plain")


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.ids = torch.nn.Embedding(16, 1)
        self.slope = torch.nn.Linear(3, 1)
        torch.nn.init.zeros_(self.ids.weight)

    def forward(self, batch):
        return (
            self.ids(batch["categorical"].long()).sum((1, 2)) + self.slope(batch["numeric"])[:, 0]
        )


def fitted(log, scratch=None, plan=PLAN, settings=PLAIN):
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    return protocol, cross_validate(Linear, log, protocol, plan, settings, scratch=scratch)


def test_each_training_row_is_left_out_once_and_never_used_for_itself():
    log = Log()
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    np.testing.assert_array_equal(protocol.rows, log.rows("train"))
    for split in protocol.splits:
        parts = [split.fit, split.choose, split.left]
        assert all(len(part) for part in parts)
        together = np.concatenate(parts)
        assert len(np.unique(together)) == len(together) == len(log.rows("train"))
    np.testing.assert_array_equal(protocol.holdout, log.rows("valid"))
    np.testing.assert_array_equal(protocol.test, log.rows("test"))


def test_without_folds_the_published_split_is_used():
    log = Log(folds=0, test_labels=True)
    protocol = make_protocol(log, choose_share=0.2, seed=1)
    assert protocol.kind == "split"
    np.testing.assert_array_equal(protocol.holdout, log.rows("test"))
    assert len(protocol.test) == 0
    _, folds = fitted(log)
    assert folds.holdout.shape == (1, len(log.rows("test")))


def test_without_folds_and_labels_nothing_can_judge():
    with pytest.raises(ValueError, match="prepare the dataset with folds"):
        make_protocol(Log(folds=0), choose_share=0.2, seed=1)


def test_a_flipped_fold_changes_every_prediction_but_its_own():
    _, before = fitted(Log())
    flipped = Log()
    own = flipped.fold == 1
    flipped.label[own] = 1 - flipped.label[own]
    _, after = fitted(flipped)
    mine = flipped.fold[after.rows] == 1
    np.testing.assert_array_equal(after.logits[mine], before.logits[mine])
    assert not np.allclose(after.logits[~mine], before.logits[~mine])


def test_a_finished_fold_is_read_back_and_its_weights_are_kept(tmp_path, monkeypatch):
    log = Log(200)
    protocol, first = fitted(log, tmp_path / "scratch")
    monkeypatch.setattr("lib.studies.crossfit.fit_click_model", None)
    _, again = fitted(log, tmp_path / "scratch")
    np.testing.assert_array_equal(first.logits, again.logits)
    collect_models(tmp_path / "scratch", tmp_path / "models")
    model = Linear()
    model.load_state_dict(load_file(tmp_path / "models" / "fold-1" / "weights.safetensors"))
    said = predict_logits(model, log, protocol.splits[1].left)
    np.testing.assert_allclose(said, first.logits[first.fold == 1], rtol=1e-6)
    assert list((tmp_path / "models" / "fold-1" / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_weighted_and_plain_losses_state_the_same_true_probability():
    log = Log(3000)
    plan = Plan(learning_rate=0.05, seed=1, epochs=30, batch=300, precision="float32")
    for kind in ("plain", "weighted"):
        _, folds = fitted(log, plan=plan, settings=LossSettings(kind=kind))
        stated = 1 / (1 + np.exp(-folds.logits))
        assert stated.mean() == pytest.approx(log.label[folds.rows].mean(), abs=0.02)
        assert np.abs(stated - log.p[folds.rows]).mean() < 0.06
