"""The rows of the soft-token study, trained one after another into folders that a kill spares.

pretrained frozen lora random two-layer   the recommender on that backbone
NAME-user                                 the same without a token for the user
NAME+titles  NAME-user+titles             with its titles' embeddings
held-out                                  the first backbone, trained without a share of the users
sasrec  bpr-mf  fpmc                      what it is compared with, same d, same softmax or same BPR

A finished row is ``vectors.safetensors`` (user states at the test histories, item vectors: their
product is the score, whatever the model), ``row.json`` (cost, curve) (and, for held-out, ``run/``).
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lib.data.files import open_manifest, read_json, write_json, write_manifest
from lib.data.histories import Histories, Targets
from lib.models.item_inputs import build_item_input
from lib.models.sasrec import SASRec, SASRecConfig, encode_users
from lib.models.soft_token import SoftTokenConfig
from lib.studies.factors import build_factors, encode_factors, train_factors
from lib.studies.negatives import ItemSampler
from lib.studies.sequences import to_device, train_sasrec
from lib.studies.soft_token_loss import LossConfig, SoftTokenLoss, sampled_next_item_loss
from lib.studies.soft_token_run import save_run
from lib.studies.soft_tokens import (
    BACKBONES,
    BackboneKind,
    build_trunk,
    count_parameters,
    encode,
    recommender,
    sequence_source,
    start_from_titles,
    test_windows,
    train_soft_tokens,
)
from lib.train.loop import Result
from lib.train.plan import Plan

__all__ = [
    "Row",
    "Study",
    "parse_row",
    "publish_rows",
    "read_row",
    "read_rows",
    "train_row",
    "users_left_out",
]

KIND = "soft-token-row"
Vectors = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all rows share, and what was tuned for each kind (``settings``)."""

    histories: Histories
    backbone: Path
    loss: LossConfig
    plan: Plan  # the learning rate comes from ``settings``
    settings: Mapping[str, Mapping[str, float]]
    valid: Targets
    d_rec: int
    max_len: int
    batch: int  # users per step
    temperature: float | None  # of a cosine score; None scores by dot product
    filter_seen: bool
    use_user: bool = True
    titles: NDArray[np.float32] | None = None  # (V + 1, D_text)
    title_use: Literal["start", "add"] = "add"
    held_out: float = 0.1  # share of users that the row of that name does not see
    lora_rank: int = 8
    ridge: float = 1.0
    device: str = "cpu"

    @property
    def score(self) -> Literal["dot", "cosine"]:
        return "dot" if self.temperature is None else "cosine"


@dataclass(frozen=True)
class Row:
    """A finished row, read back."""

    name: str
    seed: int
    users: NDArray[np.float32]  # (T, d) at the test targets
    items: NDArray[np.float32]  # (V + 1, d)
    cost: dict[str, float]
    curve: list[dict[str, float]]
    folder: Path


def parse_row(row: str) -> tuple[str, bool, bool]:
    """The name, whether the user has a token, whether titles are used.

    >>> parse_row("frozen-user+titles")
    ('frozen', False, True)
    """
    marked, _, extra = row.partition("+")
    name, soft = marked.removesuffix("-user"), (*BACKBONES, "held-out")
    known = (*soft, "sasrec", "bpr-mf", "fpmc")
    possible = (name == marked or name in soft) and (not extra or name in (*soft, "sasrec"))
    if name not in known or extra not in ("", "titles") or not possible:
        raise ValueError(f"row {row!r}: expected one of {', '.join(known)}; the recommender's also "
                         "with -user, these and sasrec also with +titles")  # fmt: skip
    return name, name == marked, bool(extra)


def users_left_out(study: Study) -> NDArray[np.int32]:
    """A fixed share of the users with a test target."""
    users = np.unique(study.histories.targets["test"].users)
    n = max(1, round(study.held_out * len(users)))
    drawn = np.random.default_rng(0).choice(users, size=n, replace=False)
    return np.sort(drawn).astype(np.int32)


def train_row(
    study: Study,
    row: str,
    seed: int,
    folder: Path,
    *,
    keep: Path | None = None,
    report: Callable[..., None] | None = None,
) -> Row:
    """Train one row with one seed into ``folder``, or read it back where it is finished.

    ``keep`` is where the recommender itself goes, for ``recommend`` and the diagnostics.
    """
    name, _, with_titles = parse_row(row)
    if with_titles and study.titles is None:
        raise ValueError(f"row {row!r} needs titles: give the notebook a source of embeddings")
    if keep is not None and name not in BACKBONES:
        raise ValueError(f"the first row is {row!r}, whose model is kept for `recommend`: expected "
                         f"one of {', '.join(BACKBONES)}")  # fmt: skip
    if (folder / "manifest.json").exists():
        return read_row(folder)
    plan = replace(study.plan, seed=seed, **plan_settings(study, name))
    scratch = folder.with_name(f"{folder.name}-checkpoint")
    titles = study.titles if with_titles else None
    keep = folder / "run" if name == "held-out" else keep
    if name == "sasrec":
        result, vectors, size = run_sasrec(study, plan, titles, scratch, report)
    elif name in ("bpr-mf", "fpmc"):
        result, vectors, size = run_factors(study, name, plan, scratch, report)
    else:
        result, vectors, size = run_soft(study, row, plan, titles, scratch, keep, report)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"users": vectors[0], "items": vectors[1]}, folder / "vectors.safetensors")
    cost = {
        "seconds": result.seconds, "positions_per_second": result.terms_per_second,
        "best_epoch": float(result.best_epoch), "valid": float(result.best_score or 0.0), **size,
    }  # fmt: skip
    write_json(folder / "row.json",
               {"row": row, "seed": seed, "cost": cost, "curve": result.history})  # fmt: skip
    write_manifest(folder, KIND, {})
    return read_row(folder)


def read_row(folder: Path) -> Row:
    """A finished row."""
    open_manifest(folder, KIND)
    told = cast(dict[str, Any], read_json(folder / "row.json"))
    vectors = load_file(folder / "vectors.safetensors")
    return Row(told["row"], told["seed"], vectors["users"], vectors["items"], told["cost"],
               told["curve"], folder)  # fmt: skip


def read_rows(folders: Sequence[Path]) -> dict[str, list[Row]]:
    """All finished rows of several nodes by name, each with its seeds."""
    found: dict[str, list[Row]] = {}
    for folder in folders:
        for place in sorted(folder.iterdir()):
            if (place / "manifest.json").exists():
                row = read_row(place)
                found.setdefault(row.name, []).append(row)
    if not found:
        raise FileNotFoundError("no trained row to evaluate; run 30_train_soft_tokens first")
    return found


def plan_settings(study: Study, name: str) -> dict[str, Any]:
    """Fields of the plan that were tuned for this row; rows without their own take "soft"."""
    fields = ("learning_rate", "table_learning_rate", "table_decay", "weight_decay")
    return {key: value for key, value in settings_of(study, name).items() if key in fields}


def settings_of(study: Study, name: str) -> Mapping[str, float]:
    soft = "soft" if name in BACKBONES or name == "held-out" else ""
    chosen = study.settings.get(name, study.settings.get(soft))
    if chosen is None or "learning_rate" not in chosen:
        raise ValueError(f"settings: no learning_rate for {name!r}; got {sorted(study.settings)}")
    return chosen


def run_soft(
    study: Study, row: str, plan: Plan, titles: NDArray[np.float32] | None, scratch: Path,
    keep: Path | None, report: Callable[..., None] | None,
) -> tuple[Result, Vectors, dict[str, float]]:  # fmt: skip
    name, with_user, _ = parse_row(row)
    histories, tuned = study.histories, settings_of(study, name)
    left_out = users_left_out(study) if name == "held-out" else None
    kind = cast(BackboneKind, "pretrained" if name == "held-out" else name)
    trunk = build_trunk(study.backbone, kind, seed=plan.seed, lora_rank=study.lora_rank)
    config = SoftTokenConfig(
        n_users=histories.n_users, n_items=histories.n_items, d_rec=study.d_rec,
        max_len=study.max_len, score=study.score, temperature=study.temperature or 1.0,
        use_user=study.use_user and with_user, dropout=tuned.get("dropout", 0.0),
        user_dropout=tuned.get("user_dropout", 0.0), token_gain=tuned.get("token_gain"),
        sparse_items=study.loss.is_sampled(histories.n_items),
    )  # fmt: skip
    added = titles if study.title_use == "add" else None
    model = recommender(trunk, config, seed=plan.seed, titles=added,
                        trunk_dropout=tuned.get("trunk_dropout", 0.0))  # fmt: skip
    if titles is not None and study.title_use == "start":
        start_from_titles(model, titles)
    source = sequence_source(histories, max_len=study.max_len, batch=study.batch, seed=plan.seed,
                             left_out=left_out)  # fmt: skip
    valid = study.valid
    if left_out is not None:
        kept = ~np.isin(valid.users, left_out)
        valid = Targets(valid.users[kept], valid.positions[kept])
    loss = SoftTokenLoss(study.loss, ItemSampler(histories, device=study.device))
    result = train_soft_tokens(
        model, source, loss, plan, histories, valid=valid, filter_seen=study.filter_seen,
        device=study.device, scratch=scratch, report=report,
    )  # fmt: skip
    if keep is not None:
        save_run(keep, model, histories, row=row, backbone=kind, lora_rank=study.lora_rank,
                 filter_seen=study.filter_seen, ridge=study.ridge, left_out=left_out)  # fmt: skip
    windows = test_windows(histories, histories.targets["test"], study.max_len)
    users = encode(model, windows, device=study.device)
    return result, (users, model.item_vectors().float().cpu().numpy()), count_parameters(model)


def run_sasrec(
    study: Study, plan: Plan, titles: NDArray[np.float32] | None, scratch: Path,
    report: Callable[..., None] | None,
) -> tuple[Result, Vectors, dict[str, float]]:  # fmt: skip
    histories, test = study.histories, study.histories.targets["test"]
    torch.manual_seed(plan.seed)
    texts = None if titles is None else torch.from_numpy(np.array(titles[1:], dtype=np.float32))
    items = build_item_input("id" if texts is None else "sum", n_items=histories.n_items,
                             n_dims=study.d_rec, embeddings=texts)  # fmt: skip
    config = SASRecConfig(
        n_dims=study.d_rec, n_layers=2, n_heads=2, d_inner=4 * study.d_rec, max_len=study.max_len,
        dropout=settings_of(study, "sasrec").get("dropout", 0.0), score=study.score,
        temperature=study.temperature or 1.0,
    )  # fmt: skip
    model = SASRec(items, config)
    loss = None
    if study.loss.is_sampled(histories.n_items):
        sampler = ItemSampler(histories, device=study.device)
        loss = partial(sampled_next_item_loss, sampler=sampler, n_sampled=study.loss.n_sampled)
    result = train_sasrec(
        model, histories, replace(plan, batch=study.batch), valid=study.valid, loss=loss,
        filter_seen=study.filter_seen, device=study.device, scratch=scratch, report=report,
    )  # fmt: skip
    ids, lengths = histories.windows(test.users, test.positions, study.max_len)
    parts = encode_users(model, to_device(ids, study.device), to_device(lengths, study.device))
    users = torch.cat(list(parts)).float().cpu().numpy()
    return result, (users, model.item_vectors().float().cpu().numpy()), count_parameters(model)


def run_factors(
    study: Study, name: str, plan: Plan, scratch: Path, report: Callable[..., None] | None
) -> tuple[Result, Vectors, dict[str, float]]:
    kind = cast(Literal["bpr-mf", "fpmc"], name)
    model = build_factors(kind, study.histories, n_dims=study.d_rec, seed=plan.seed)
    steps = max(64, round(study.batch * float(study.histories.train_lengths.mean())))
    result = train_factors(
        model, study.histories, plan, n_negatives=study.loss.n_negatives, batch=steps,
        valid=study.valid, filter_seen=study.filter_seen, device=study.device, scratch=scratch,
        report=report,
    )  # fmt: skip
    vectors = encode_factors(model, study.histories, study.histories.targets["test"])
    return result, vectors, count_parameters(model)


def publish_rows(rows: Sequence[Row], folder: Path) -> None:
    """Copy finished rows to where other notebooks read them."""
    for row in rows:
        place = folder / f"{row.name.replace('+', '-with-')}-{row.seed}"
        shutil.copytree(row.folder, place, dirs_exist_ok=True)
