"""The loop: what decides, what is restored, what is repaired and said."""

import csv
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lib.models.tables import Table
from lib.train import memory, precision, step
from lib.train.folds import train_folds
from lib.train.loop import train
from lib.train.plan import Plan
from lib.train.schedule import share_at
from lib.train.sources import TensorSource
from lib.train.state import TrainingDiverged
from lib.train.step import count_of
from tests.train import runs

SHARE = step.learning_rate_share


def source(batch=4, n=8):
    x = torch.linspace(-1, 1, n)[:, None]
    return TensorSource({"x": x, "y": 3 * x[:, 0]}, batch=batch, seed=1)


def squares(model, batch):
    return (model(batch["x"])[:, 0] - batch["y"]).square().mean()


def plan(**changes):
    return Plan(
        **({"learning_rate": 0.1, "seed": 1, "epochs": 4, "precision": "float32"} | changes)
    )


def scripted(*scores):
    """A validation that answers given scores and remembers the weights it saw."""
    left, seen = list(scores), []

    def validate(model):
        assert not model.training
        seen.append(model.weight.detach().clone())
        return {"score": left.pop(0)}

    return validate, seen


@pytest.mark.parametrize(("better", "best"), [("higher", 1), ("lower", 2)])
def test_the_best_weights_in_the_right_direction_are_restored_as_a_copy(better, best):
    model = nn.Linear(1, 1)
    validate, seen = scripted(0.1, 0.9, -0.5, 0.3)
    result = train(
        model, source(), squares, plan=plan(metric="score", better=better), validate=validate
    )
    assert torch.equal(model.weight, seen[best])
    assert result.best_epoch == best + 1
    assert len({float(w) for w in seen}) == 4


def test_patience_counts_validations_since_the_best():
    validate, seen = scripted(0.5, 0.4, 0.5, 0.9)
    stopping = plan(epochs=9, metric="score", patience=2)
    result = train(nn.Linear(1, 1), source(), squares, plan=stopping, validate=validate)
    assert len(seen) == 3  # equal is not better
    assert result.best_score == 0.5


def test_a_missing_metric_and_a_nan_one_are_errors():
    validate, _ = scripted(float("nan"))
    with pytest.raises(TrainingDiverged, match="score=nan"):
        train(nn.Linear(1, 1), source(), squares, plan=plan(metric="score"), validate=validate)
    validate, _ = scripted(0.1)
    with pytest.raises(ValueError, match=r"'auc' is not in .*'score'"):
        train(nn.Linear(1, 1), source(), squares, plan=plan(metric="auc"), validate=validate)


def test_steps_end_in_the_middle_of_an_epoch_and_validate_on_the_way():
    result = train(
        nn.Linear(1, 1), source(), squares, plan=plan(epochs=None, steps=7, validate_every=3)
    )
    assert [row["step"] for row in result.history] == [3, 6, 7]
    assert result.steps == 7


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"accumulate": 3}])
def test_accumulated_batches_equal_one_large_batch(changes):
    small, large = nn.Linear(1, 1), nn.Linear(1, 1)
    large.load_state_dict(small.state_dict())
    ordered = {"shuffle": False, "seed": 1}
    arrays = {"x": torch.linspace(-1, 1, 7)[:, None], "y": torch.ones(7)}  # the last batch is short
    n = changes["accumulate"]
    train(small, TensorSource(arrays, batch=2, **ordered), squares, plan=plan(**changes))
    train(large, TensorSource(arrays, batch=2 * n, **ordered), squares, plan=plan())
    torch.testing.assert_close(small.weight, large.weight)


def test_count_weighs_pieces_by_the_terms_they_hold():
    def masked(model, batch):
        wanted = batch["y"] > 0
        return (model(batch["x"])[:, 0] - 1)[wanted].square().sum() / wanted.sum().clamp(min=1)

    arrays = {"x": torch.linspace(-1, 1, 6)[:, None], "y": torch.tensor([1, 0, 0, 1, 1, 1])}
    weights = []
    for batch, accumulate in ((6, 1), (3, 2)):
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        data = TensorSource(arrays, batch=batch, seed=1, shuffle=False)
        train(model, data, masked, plan=plan(accumulate=accumulate), count=count_of("y"))
        weights.append(model.weight)
    torch.testing.assert_close(weights[0], weights[1])


def test_a_plateau_lowers_the_rate_after_each_validation_without_progress(monkeypatch):
    shares = []
    monkeypatch.setattr(
        step, "learning_rate_share", lambda run: shares.append(SHARE(run)) or shares[-1]
    )
    validate, _ = scripted(0.5, 0.4, 0.3, 0.9, 0.8)
    flat = plan(epochs=5, metric="score", schedule="plateau", plateau_factor=0.5)
    train(nn.Linear(1, 1), source(batch=8), squares, plan=flat, validate=validate)
    assert shares == [1.0, 1.0, 0.5, 0.25, 0.25]


def test_out_of_memory_halves_the_pieces_keeps_the_result_and_says_so():
    def hungry(model, batch):
        if len(batch["x"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return squares(model, batch)

    weights, told = [], []
    for loss in (squares, hungry):
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        result = train(
            model, source(batch=8), loss, plan=plan(), report=lambda *a, **v: told.append(v)
        )
        weights.append(model.weight)
    torch.testing.assert_close(weights[0], weights[1])
    assert len(result.changes) == 2  # halved twice, then kept
    assert "in 4 pieces of about 2 rows, the effective batch is unchanged" in result.changes[1]
    assert any("4 pieces" in str(values.get("message")) for values in told)


def test_one_row_that_does_not_fit_is_an_error_and_other_errors_pass_through():
    def impossible(model, batch):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(MemoryError, match="one row alone does not fit"):
        train(nn.Linear(1, 1), source(), impossible, plan=plan())

    def broken(model, batch):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        train(nn.Linear(1, 1), source(), broken, plan=plan())
    assert not memory.is_out_of_memory(ValueError("not enough memory"))


def test_a_loss_that_overflows_bfloat16_falls_back_to_float32_and_says_so(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)

    def overflowing(model, batch):
        out = model(batch["x"])
        bad = torch.where(torch.tensor(out.dtype == torch.bfloat16), float("inf"), 1.0)
        return squares(model, batch) * bad

    result = train(nn.Linear(1, 1), source(), overflowing, plan=plan(precision="bfloat16"))
    assert "not finite in bfloat16, float32 from here on" in result.changes[0]
    assert result.precision == "float32"
    assert np.isfinite(result.history[-1]["loss"])


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_loss_that_stays_infinite_ends_the_run(clip):
    def infinite(model, batch):
        return squares(model, batch) * (float("inf") if clip is None else 1.0) + (
            0 * model.weight.sum().sub(model.weight.sum().detach()).sqrt()  # gradient 0 * inf
            if clip
            else 0.0
        )

    with pytest.raises(TrainingDiverged, match=r"step 0: losses .* lower the learning rate"):
        train(nn.Linear(1, 1), source(), infinite, plan=plan(clip=clip))


def test_the_model_runs_in_bfloat16_and_sums_outside_it(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    seen = []

    def loss(model, batch):
        out = model(batch["x"])
        seen.append(out.dtype)
        return (out.float()[:, 0] - batch["y"]).square().mean()

    train(nn.Linear(1, 1), source(), loss, plan=plan(precision="bfloat16", epochs=1))
    assert set(seen) == {torch.bfloat16}


def test_no_bfloat16_hardware_means_float32_and_asking_for_it_warns(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    cpu, wide = torch.device("cpu"), nn.Linear(256, 256)
    assert precision.choose_precision("auto", cpu, wide) == "float32"
    with pytest.warns(UserWarning, match="emulates it"):
        assert precision.choose_precision("bfloat16", cpu, wide) == "bfloat16"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_narrow_products_stay_float32_on_a_cpu_however_long_the_tables(device, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    narrow = nn.ModuleList([Table(100, 300), nn.Embedding(100, 300), nn.Linear(300, 64)])
    wide = nn.ModuleList([Table(1000, 4), nn.Linear(300, 200)])
    found = [precision.choose_precision("auto", torch.device(device), m) for m in (narrow, wide)]
    assert found == ["float32" if device == "cpu" else "bfloat16", "bfloat16"]


def test_averaged_weights_are_judged_kept_and_compared_with_plain_ones():
    def validate(model):
        return {"weight": float(model.weight)}

    result = train(
        nn.Linear(1, 1),
        source(),
        squares,
        plan=plan(average=0.5, judged="both", metric="weight"),
        validate=validate,
    )
    for row in result.history:
        assert row["weight"] < row["plain_weight"]  # the average lags behind a rising weight


def test_named_losses_are_summed_and_each_is_in_the_history():
    def two(model, batch):
        return {"main": squares(model, batch), "aux": 0.1 * model.weight.square().sum()}

    row = train(nn.Linear(1, 1), source(), two, plan=plan()).history[0]
    assert row["loss"] == pytest.approx(row["loss_main"] + row["loss_aux"])
    with pytest.raises(ValueError, match="'loss' must be a tensor without axes"):
        train(nn.Linear(1, 1), source(), lambda m, b: m(b["x"]), plan=plan())


def test_progress_history_and_tensorboard_are_left(tmp_path):
    told = []
    result = train(
        nn.Linear(1, 1),
        source(),
        squares,
        plan=plan(),
        report=lambda done, total, **values: told.append((done, total, values)),
        logs=tmp_path,
    )
    assert told[-1][:2] == (8, 8)
    assert {"loss", "rows_per_second", "seconds_left"} <= told[-1][2].keys()
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in result.history]
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert result.rows_per_second > 0
    assert result.peak_memory > 1e6


def test_gradient_checkpointing_needs_a_model_that_offers_it():
    with pytest.raises(ValueError, match="Linear has no method gradient_checkpointing_enable"):
        train(nn.Linear(1, 1), source(), squares, plan=plan(gradient_checkpointing=True))


def test_plan_and_source_must_agree_on_the_batch():
    with pytest.raises(ValueError, match="the plan says 5, the source 4"):
        train(nn.Linear(1, 1), source(), squares, plan=plan(batch=5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": None}, "exactly one"),
        ({"steps": 3}, "exactly one"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above zero"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"patience": 1}, "need a metric"),
        ({"machines": 2}, "rendezvous"),
    ],
)
def test_a_wrong_plan_names_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_a_plan_from_parameters_takes_what_it_knows():
    made = Plan.from_params({"learning_rate": 1.0, "epochs": 2, "dropout": 0.5}, seed=4)
    assert (made.learning_rate, made.epochs, made.seed) == (1.0, 2, 4)
    grouped = Plan.from_params(
        {"learning_rate": 1.0, "steps": 2, "groups": [{"match": "head", "learning_rate": 0.1}]},
        seed=4,
    )
    assert grouped.groups[0].match == "head"
    with pytest.raises(ValueError, match="'sed'"):
        Plan.from_params({}, sed=4)


def test_cosine_rises_then_falls_to_its_final_share():
    cosine = plan(schedule="cosine", warmup=0.2, final_share=0.1)
    shares = [share_at(i, 20, cosine) for i in range(20)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert shares[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(shares[3:]))


def test_finished_folds_are_not_trained_again(tmp_path):
    trained = []

    def fit(fold, scratch):
        trained.append(fold)
        if fold == 2 and trained.count(2) == 1:
            raise KeyboardInterrupt
        return {"predictions": np.full(3, fold, dtype=np.float32)}

    with pytest.raises(KeyboardInterrupt):
        train_folds(3, fit, scratch=tmp_path)
    answers = train_folds(3, fit, scratch=tmp_path)
    assert trained == [0, 1, 2, 2]
    assert [float(a["predictions"][0]) for a in answers] == [0.0, 1.0, 2.0]


def test_training_learns():
    result, _ = runs.run("ctr", None)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_compiled_forward_is_a_switch():
    model = nn.Linear(1, 1)
    called = []
    model.compile = lambda: called.append(True)
    train(model, source(), squares, plan=plan(compile=True))
    assert called == [True]
