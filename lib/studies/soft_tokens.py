"""One row of the soft-token study: a backbone, its tokens, its losses, trained and encoded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lib.data.histories import Histories, Targets
from lib.evaluate import ranking
from lib.evaluate.projection import effective_rank
from lib.language.attention import FUSED
from lib.language.backbone import add_lora, load_backbone, set_attention, trunk_of
from lib.models.dropout import add_dropout
from lib.models.soft_token import SoftTokenConfig, SoftTokenRecommender
from lib.studies.sequences import Ranked
from lib.studies.soft_token_loss import SoftTokenLoss
from lib.train.buckets import BucketSource
from lib.train.loop import Result, train
from lib.train.plan import Plan

__all__ = [
    "BACKBONES", "BackboneKind", "Windows", "build_trunk", "count_parameters", "count_predicted",
    "encode", "rank_vectors", "recommender", "sequence_source", "start_from_titles", "test_windows",
    "train_soft_tokens",
]  # fmt: skip

BackboneKind = Literal["pretrained", "frozen", "lora", "random", "two-layer"]
BACKBONES = ("pretrained", "frozen", "lora", "random", "two-layer")
RANK_ROWS = 2_000  # of the item table, for its effective rank while training


@dataclass(frozen=True)
class Windows:
    """Histories to encode: whose, which items (right-padded, oldest first), how many."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    lengths: NDArray[np.int32]


def build_trunk(
    folder: str | Path, kind: BackboneKind, *, seed: int, lora_rank: int = 8
) -> PreTrainedModel:
    """The layers of a language model, ready to take soft tokens."""
    if kind not in BACKBONES:
        raise ValueError(f"backbone {kind!r}: expected one of {', '.join(BACKBONES)}")
    if kind in ("pretrained", "frozen", "lora"):
        model: nn.Module = load_backbone(folder, attention="causal").model
        if kind == "lora":
            model = add_lora(model, rank=lora_rank, alpha=2 * lora_rank, dropout=0.0)  # type: ignore[arg-type]
        elif kind == "frozen":
            model.requires_grad_(False)
    else:
        config = AutoConfig.from_pretrained(str(folder))
        if kind == "two-layer":
            config.num_hidden_layers = 2
            if getattr(config, "layer_types", None):
                config.layer_types = [config.layer_types[0]] * 2
        model = trunk_from_config(config, seed=seed)
    trunk = trunk_of(model)
    trunk.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]  # words are not read
    return cast(PreTrainedModel, trunk)


def trunk_from_config(config: Any, *, seed: int) -> PreTrainedModel:
    """A causal language model of that shape with fresh weights."""
    torch.manual_seed(seed)
    fresh = AutoModelForCausalLM.from_config(config, attn_implementation=FUSED).float()
    set_attention(fresh, "causal")
    return cast(PreTrainedModel, fresh)


def recommender(
    trunk: PreTrainedModel,
    config: SoftTokenConfig,
    *,
    seed: int,
    titles: NDArray[np.float32] | None = None,
    trunk_dropout: float = 0.0,
) -> SoftTokenRecommender:
    """The model with tables drawn from ``seed``; the trunk's word rows, never read, are dropped."""
    torch.manual_seed(seed)
    rows = None if titles is None else torch.from_numpy(np.asarray(titles, dtype=np.float32))
    model = SoftTokenRecommender(trunk, config, titles=rows)
    if trunk_dropout:
        add_dropout(trunk, trunk_dropout)
    if trunk.get_input_embeddings().weight.shape[0] > 1:
        trunk.set_input_embeddings(nn.Embedding(1, trunk.config.hidden_size).requires_grad_(False))
    return model


def count_parameters(model: nn.Module) -> dict[str, float]:
    """Numbers trained and numbers held."""
    return {
        "trained": float(sum(p.numel() for p in model.parameters() if p.requires_grad)),
        "parameters": float(sum(p.numel() for p in model.parameters())),
    }


@torch.no_grad()
def start_from_titles(model: SoftTokenRecommender, titles: NDArray[np.float32]) -> None:
    """Item rows begin as their titles' embeddings, turned to the table's width and length.

    Items without a title keep the row they were drawn with.
    """
    x = np.asarray(titles[1:], dtype=np.float64)
    named = np.abs(x).sum(axis=1) > 0
    centred = x[named] - x[named].mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    width = min(model.config.d_rec, len(axes))
    turned = centred @ axes[:width].T
    turned /= np.sqrt(np.square(turned).sum(axis=1).mean()).clip(1e-12)  # rows of length about one
    rows = 1 + np.flatnonzero(named)
    model.items.weight[torch.from_numpy(rows), :width] = torch.from_numpy(turned.astype("float32"))
    model.items.weight[torch.from_numpy(rows), width:] *= 0.1


def sequence_source(
    histories: Histories,
    *,
    max_len: int,
    batch: int,
    seed: int,
    left_out: NDArray[np.int32] | None = None,
) -> BucketSource:
    """Training sequences of like length together, about ``batch`` users a step.

    The window holds one item more than ``max_len``: the newest is only predicted, never read.
    ``left_out`` users are not in it at all.
    """
    users = np.flatnonzero(histories.train_lengths > 0).astype(np.int32)
    if left_out is not None:
        users = np.setdiff1d(users, left_out).astype(np.int32)
    ends = histories.train_lengths[users]
    items, lengths = histories.windows(users, ends, max_len + 1)
    targets = histories.targets["train"]
    wanted = np.zeros(len(histories.items), dtype=np.int32)
    wanted[histories.offsets[users]] = 1  # the first item, from the user alone
    wanted[histories.offsets[targets.users] + targets.positions] = 1
    predict, _ = replace(histories, items=wanted).windows(users, ends, max_len + 1)
    tokens = max(round(batch * float(lengths.mean())), 1)
    return BucketSource(
        {"users": users, "items": items, "predict": predict.astype(bool)},
        lengths,
        tokens=tokens,
        seed=seed,
        padded=("items", "predict"),
        grain=4,
    )


def count_predicted(batch: Mapping[str, Tensor]) -> Tensor:
    """Over how many positions the loss of a batch is a mean."""
    return ((batch["items"] > 0) & batch["predict"].bool()).sum()


def test_windows(histories: Histories, targets: Targets, max_len: int) -> Windows:
    """The history before each target."""
    items, lengths = histories.windows(targets.users, targets.positions, max_len)
    return Windows(targets.users, items, lengths)


test_windows.__test__ = False  # type: ignore[attr-defined]  # a name that pytest would collect


@torch.no_grad()
def encode(
    model: SoftTokenRecommender,
    windows: Windows,
    *,
    device: str = "cpu",
    user_rows: NDArray[np.float32] | None = None,
    with_user: bool = True,
    tokens: int = 16_384,
) -> NDArray[np.float32]:
    """User states ready for a product with ``item_vectors``.  -> (B, d)

    Histories of like length go through together, about ``tokens`` positions at a time.
    """
    was_training = model.training
    model.eval()
    found = np.empty((len(windows.users), model.config.d_rec), dtype=np.float32)
    order = np.argsort(windows.lengths, kind="stable")
    start = 0
    while start < len(order):
        widths = windows.lengths[order[start : start + tokens]].astype(np.int64) + 1
        count = max(1, int(np.sum(widths * np.arange(1, len(widths) + 1) <= tokens)))
        rows = order[start : start + count]
        width, users = int(windows.lengths[rows].max()), None
        if with_user:
            users = torch.from_numpy(windows.users[rows].astype(np.int64)).to(device)
        given = None if user_rows is None else torch.from_numpy(user_rows[rows]).to(device)
        ids = torch.from_numpy(windows.items[rows, :width].astype(np.int64)).to(device)
        lengths = torch.from_numpy(windows.lengths[rows].astype(np.int64)).to(device)
        vectors = model.user_vectors(users, ids, lengths, user_rows=given)
        found[rows] = vectors.float().cpu().numpy()
        start += count
    model.train(was_training)
    return found


def rank_vectors(
    users: NDArray[np.float32],
    items: NDArray[np.float32],
    histories: Histories,
    targets: Targets,
    *,
    filter_seen: bool,
    device: str = "cpu",
) -> Ranked:
    """Rank every target among all items by products of vectors."""
    wanted = histories.target_items(targets)
    seen = histories.seen(targets.users, targets.positions) if filter_seen else None
    people, things = torch.from_numpy(users).to(device), torch.from_numpy(items).to(device)
    return Ranked(targets.users, wanted, ranking.rank_targets(people, things, wanted, seen))


def train_soft_tokens(
    model: SoftTokenRecommender,
    source: BucketSource,
    loss: SoftTokenLoss,
    plan: Plan,
    histories: Histories,
    *,
    valid: Targets,
    filter_seen: bool,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Callable[..., None] | None = None,
) -> Result:
    """Train by ``plan``; epochs are chosen by full-ranking NDCG@10 on ``valid``, a fixed sample."""
    windows = test_windows(histories, valid, model.config.max_len)

    def validate(trained: nn.Module) -> Mapping[str, float]:
        assert isinstance(trained, SoftTokenRecommender)
        users = encode(trained, windows, device=device)
        items = trained.item_vectors().float().cpu().numpy()
        ranked = rank_vectors(
            users, items, histories, valid, filter_seen=filter_seen, device=device
        )
        scores = ranking.summarise(ranked.ranks, ks=[10], measures=["hit", "ndcg"])
        step = max(1, len(items) // RANK_ROWS)
        return scores | {
            "item token scale": float(trained.item_scale.gain),
            "user token scale": float(trained.user_scale.gain),
            "effective rank": effective_rank(items[1::step]),
        }

    return train(
        model.to(device),
        source,
        loss,
        plan=plan,
        validate=validate,
        scratch=scratch,
        report=report,
        count=count_predicted,
    )
