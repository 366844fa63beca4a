"""A click model trained on Clicks: rows in order, folds that never see themselves, two outputs."""

import numpy as np
import pytest
import torch

from lib.studies.clicks import (
    ClickLoss,
    ClickSource,
    LossSettings,
    fit_click_model,
    judge_logits,
    predict_logits,
    sigmoid,
)
from lib.train.plan import Plan


class Log:
    """A click log in memory with the reading side of Clicks."""

    def __init__(self, n=600, seed=1):
        rng = np.random.default_rng(seed)
        self.categorical = rng.integers(0, 8, (n, 1)).astype(np.int32)
        self.p = np.where(self.categorical[:, 0] < 2, 0.6, 0.05)
        self.label = (rng.random(n) < self.p).astype(np.int8)
        self.fold = (np.arange(n) % 3).astype(np.int16)
        self.tokens = rng.integers(2, 9, (n, 4)).astype(np.int32)

    def rows(self, split):
        return np.arange(len(self.label))

    def take(self, rows, max_len=None):
        log = self

        class Rows:
            categorical, label = log.categorical[rows], log.label[rows]
            numeric, missing = (
                np.zeros((len(rows), 0), np.float32),
                np.zeros((len(rows), 0), np.uint8),
            )

            def padded(self, width):
                return log.tokens[rows][:, -width:], np.full(len(rows), min(4, width), np.int32)

        return Rows()


class Table(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Embedding(8, 1)
        torch.nn.init.zeros_(self.w.weight)

    def forward(self, batch):
        return self.w(batch["categorical"].long()).sum((1, 2))


PLAN = Plan(
    learning_rate=0.1,
    seed=1,
    epochs=30,
    batch=200,
    metric="log_loss",
    better="lower",
    precision="float32",
)


def test_batches_hold_every_row_once_and_sequences_when_asked():
    log = Log(50)
    source = ClickSource(log, np.arange(10, 50), batch=7, seed=1, max_len=3)
    batches = list(source.batches(0))
    assert len(batches) == len(source) == 6
    assert sum(len(b["label"]) for b in batches) == 40
    assert batches[0]["sequence"].shape == (7, 3)
    again = list(source.batches(0, start=4))
    assert torch.equal(again[0]["categorical"], batches[4]["categorical"])


@pytest.mark.parametrize(
    ("kind", "fraction"), [("plain", None), ("weighted", None), ("plain", 0.5), ("weighted", 0.3)]
)
def test_every_loss_and_sampler_ends_at_the_true_probability(kind, fraction):
    log = Log(3000)
    model, _, shift = fit_click_model(
        Table(),
        log,
        log.rows("train"),
        log.rows("train"),
        PLAN,
        LossSettings(kind=kind),
        positive_fraction=fraction,
    )
    p = sigmoid(predict_logits(model, log, log.rows("train")) + shift)
    for low, truth in ((True, 0.6), (False, 0.05)):
        group = (log.categorical[:, 0] < 2) == low
        rate = log.label[group].mean()
        assert p[group].mean() == pytest.approx(rate, abs=0.03)
        assert rate == pytest.approx(truth, abs=0.05)


def test_balanced_measures_come_from_the_shifted_logit():
    labels = np.array([1] + [0] * 51)
    flat = np.full(52, np.log((1 / 52) / (51 / 52)))
    judged = judge_logits(labels, flat, rate=1 / 52)
    assert judged["weighted_log_loss"] == pytest.approx(np.log(2))
    assert judged["mean_prediction"] == pytest.approx(1 / 52)


def test_auxiliary_and_second_pass_reach_the_loss_with_their_gradient():
    class Two(Table):
        def all_logits(self, batch, second_pass=False):
            x = self.forward(batch)
            return x, (2 * x if second_pass else None), 3 * x + 1

    batch = {"categorical": torch.tensor([[1], [2]]), "label": torch.tensor([1, 0])}
    gradients = []
    for settings in (
        LossSettings(kind="plain"),
        LossSettings(kind="plain", auxiliary=0.1),
        LossSettings(kind="self_ensemble", auxiliary=0.1),
    ):
        model = Two()
        torch.nn.init.constant_(model.w.weight, 0.5)
        terms = ClickLoss(settings, 0.5)(model, batch)
        sum(terms.values()).backward()
        gradients.append(model.w.weight.grad.clone())
    assert not torch.allclose(gradients[0], gradients[1])
    assert not torch.allclose(gradients[1], gradients[2])


def test_one_class_alone_is_refused():
    log = Log(20)
    log.label[:] = 0
    with pytest.raises(ValueError, match="one class"):
        fit_click_model(
            Table(), log, log.rows("train"), log.rows("train"), PLAN, LossSettings(kind="plain")
        )
