"""One protocol for every click model, network or trees: who trains on which rows, who judges.

``folds``: each fold of the training rows is predicted by a model that never saw it, neither for
its weights nor for its epoch: a share of the other folds, drawn once, chooses the epoch. The
held-out day is predicted by all of them.  ``split``: train, valid and test as published.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.data.files import write_json
from lib.studies.click_view import ReadsClicks
from lib.studies.clicks import LossSettings, fit_click_model, predict_logits
from lib.train.folds import train_folds
from lib.train.plan import Plan

__all__ = ["Folds", "Protocol", "Split", "collect_models", "cross_validate", "crossfit",
           "make_protocol"]  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]
Report = Callable[..., None]
MODEL = "model"  # subfolder of a fold's scratch that outlives it


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of one training run."""

    fit: Ints
    choose: Ints  # choose the epoch; never judged
    left: Ints  # predicted, by nothing that saw them


@dataclass(frozen=True, slots=True)
class Protocol:
    kind: Literal["folds", "split"]
    splits: tuple[Split, ...]
    holdout: Ints  # labelled rows that only judge
    test: Ints  # unlabelled

    @property
    def rows(self) -> Ints:
        """Rows predicted out of fold, ascending."""
        return np.sort(np.concatenate([split.left for split in self.splits]))

    def first(self, n_splits: int) -> "Protocol":
        """Only the first splits: a cheaper comparison on fewer rows."""
        return replace(self, splits=self.splits[:n_splits])


def make_protocol(clicks: ReadsClicks, *, choose_share: float, seed: int) -> Protocol:
    """Folds where the training rows have them, else the published split.

    In the published split the valid rows choose the epoch *and* count as left out: what they say
    is optimistic, and the labelled test rows judge.
    """
    train, valid, test = (clicks.rows(name) for name in ("train", "valid", "test"))
    fold = np.asarray(clicks.fold[train])
    numbers = np.unique(fold[fold >= 0])
    labelled = test[np.asarray(clicks.label[test]) >= 0]
    unlabelled = np.setdiff1d(test, labelled)
    if len(numbers) < 2:
        if not len(valid) or not len(labelled):
            raise ValueError(
                f"{len(numbers)} fold(s), {len(valid)} valid and {len(labelled)} labelled test "
                "rows: prepare the dataset with folds, or with valid and labelled test rows"
            )
        return Protocol("split", (Split(train, valid, valid),), labelled, unlabelled)
    if not 0 < choose_share < 1:
        raise ValueError(f"{choose_share=} of the training rows must lie between 0 and 1")
    chooses = np.random.default_rng(seed).random(len(train)) < choose_share
    splits = tuple(
        Split(train[(fold != k) & ~chooses], train[(fold != k) & chooses], train[fold == k])
        for k in numbers
    )
    return Protocol("folds", splits, np.union1d(valid, labelled), unlabelled)


@dataclass(frozen=True)
class Folds:
    """What the models of one kind say of rows that they never saw; logits are of the true
    probability."""

    rows: Ints
    fold: npt.NDArray[np.int16]
    logits: Floats  # (N,)
    holdout: Floats  # (K, H)
    test: Floats  # (K, T)
    seconds: float
    epochs: list[int]  # or rounds of boosting
    parameters: int
    curves: list[list[float]]  # the deciding metric on the rows that choose
    columns: Mapping[str, tuple[Floats, Floats, Floats]]  # other outputs: left, hold-out, test
    extra: Mapping[str, npt.NDArray[Any]]  # what else a fit answered, stacked over folds


def crossfit(
    protocol: Protocol,
    fit: Callable[[int, Split, Path | None], Arrays],
    *,
    scratch: Path | None = None,
    report: Report | None = None,
) -> Folds:
    """Run ``fit(number, split, folder)`` for each split; a finished one is read back.

    It answers ``left``, ``holdout``, ``test`` (logits), ``cost`` (seconds, epochs, parameters),
    ``curve``; per further output NAME ``NAME.left``, ``NAME.holdout``, ``NAME.test``; and anything
    else of the same shape in each fold.
    """

    def one(number: int, folder: Path | None) -> Arrays:
        return fit(number, protocol.splits[number], folder)

    if len(protocol.splits) > 1:  # a single split is trained again after a kill of what follows it
        answers = train_folds(len(protocol.splits), one, scratch=scratch, report=report)
    else:
        answers = [one(0, None if scratch is None else scratch / "fold-0")]
    rows = protocol.rows
    fold = np.empty(len(rows), np.int16)
    for number, split in enumerate(protocol.splits):
        fold[np.searchsorted(rows, split.left)] = number

    def out_of_fold(key: str) -> Floats:
        found = np.empty(len(rows))
        for split, answer in zip(protocol.splits, answers, strict=True):
            found[np.searchsorted(rows, split.left)] = answer[key]
        return found

    def voted(key: str) -> Floats:
        return np.asarray(np.mean([answer[key] for answer in answers], axis=0))

    names = [key.removesuffix(".left") for key in answers[0] if key.endswith(".left")]
    known = {"left", "holdout", "test", "cost", "curve"}
    known |= {f"{name}.{part}" for name in names for part in ("left", "holdout", "test")}
    return Folds(
        rows=rows,
        fold=fold,
        logits=out_of_fold("left"),
        holdout=np.stack([answer["holdout"] for answer in answers]),
        test=np.stack([answer["test"] for answer in answers]),
        seconds=float(sum(answer["cost"][0] for answer in answers)),
        epochs=[int(answer["cost"][1]) for answer in answers],
        parameters=int(answers[0]["cost"][2]),
        curves=[answer["curve"].tolist() for answer in answers],
        columns={
            name: (out_of_fold(f"{name}.left"), voted(f"{name}.holdout"), voted(f"{name}.test"))
            for name in names
        },
        extra={name: np.stack([a[name] for a in answers]) for name in answers[0].keys() - known},
    )


def cross_validate(
    build: Callable[[], nn.Module],
    clicks: ReadsClicks,
    protocol: Protocol,
    plan: Plan,
    settings: LossSettings,
    *,
    max_len: int = 0,
    positive_fraction: float | None = None,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Report | None = None,
    objective: Callable[[nn.Module, dict[str, Tensor]], Any] | None = None,
    outputs: Mapping[str, Callable[[nn.Module, Ints], Floats]] | None = None,
) -> Folds:
    """One network per split; ``build`` sees the generator seeded for its fold.

    ``outputs`` say other things of rows than a click logit, such as a rank.
    """

    def fit(number: int, split: Split, folder: Path | None) -> Arrays:
        torch.manual_seed(plan.seed * 1_000 + number)
        keep = None if folder is None else folder / MODEL
        model, result, shift = fit_click_model(
            prepare(build(), clicks, split.fit), clicks, split.fit, split.choose, plan, settings,
            max_len=max_len, positive_fraction=positive_fraction, device=device,
            scratch=folder, report=report, logs=keep, objective=objective,
        )  # fmt: skip
        if keep is not None:
            state = {name: t.detach().to("cpu", copy=True).contiguous()  # shared tables: one each
                     for name, t in model.state_dict().items()}  # fmt: skip
            save_file(state, keep / "weights.safetensors")
            write_json(keep / "output.json", {"shift_to_true_logit": shift})
        parts = {"left": split.left, "holdout": protocol.holdout, "test": protocol.test}
        said = {
            part: predict_logits(model, clicks, rows, max_len=max_len, device=device) + shift
            for part, rows in parts.items()
        }
        for name, answer in (outputs or {}).items():
            said |= {f"{name}.{part}": answer(model, rows) for part, rows in parts.items()}
        size = sum(p.numel() for p in model.parameters())
        curve = [row[plan.metric] for row in result.history] if plan.metric else []
        return {
            **said,
            "cost": np.array([result.seconds, result.best_epoch, size]),
            "curve": np.array(curve),
        }

    return crossfit(protocol, fit, scratch=scratch, report=report)


def prepare(model: nn.Module, clicks: ReadsClicks, rows: Ints, *, most: int = 200_000) -> nn.Module:
    """Quantile embeddings take their edges from training rows; other models are left alone."""
    fields = getattr(model, "fields", None)
    if fields is not None and clicks.layout.numeric_names:
        fields.fit_numbers(torch.from_numpy(clicks.take(rows[:most], max_len=1).numeric))
    return model


def collect_models(scratch: Path, folder: Path, names: Iterable[str] = ("",)) -> None:
    """Copy weights and logs of finished folds from scratch into an output folder."""
    for name in names:
        for fold in sorted((scratch / name).glob("fold-*")):
            shutil.copytree(fold / MODEL, folder / name / fold.name, dirs_exist_ok=True)
