"""Small trainings that a test can run here, run in a process of its own, and kill.

python runs.py KIND SCRATCH ANSWER [--processes N] [--kill-at STEP] [--steps N]
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.models.tables import Table
from lib.train.buckets import BucketSource
from lib.train.loop import Result, train
from lib.train.losses import binary_cross_entropy, full_softmax
from lib.train.plan import Group, Plan
from lib.train.sources import TensorSource
from lib.train.state import changing_tensors
from lib.train.step import count_of, count_rows

N_IDS, N_FIELDS, N_ITEMS, LENGTH = 400, 5, 60, 12


class Clicker(nn.Module):
    """A click model with all that makes resuming hard: lazy table, dropout, batch statistics."""

    def __init__(self, *, noisy: bool = True) -> None:
        super().__init__()
        self.table = Table(N_IDS, 6, scale=0.1)
        self.deep = nn.Sequential(nn.Linear(N_FIELDS * 6, 16), nn.ReLU())
        self.norm = nn.BatchNorm1d(16) if noisy else nn.Identity()
        self.drop = nn.Dropout(0.2 if noisy else 0.0)
        self.head = nn.Linear(16, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.deep(self.table(ids).flatten(1)))))[:, 0]


class Follower(nn.Module):
    """A causal sequence model over a small catalogue."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(N_ITEMS, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        later = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool).triu(1)
        return self.block(self.items(inputs.long()), src_mask=later, is_causal=True)


def click_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    return binary_cross_entropy(model(batch["ids"]), batch["label"])


def next_item_loss(model: Follower, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    states = model(batch["inputs"])
    wanted = batch["targets"] > 0
    ce = full_softmax(states[wanted], model.items.weight, batch["targets"][wanted])
    return {"next": ce, "size": 1e-3 * states.square().mean()}


def text_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    return model(input_ids=batch["ids"], labels=batch["ids"]).loss


@dataclass
class KillingLoss:
    """Sends this process SIGKILL in one call, in the first life of the run only."""

    loss: object
    at: int
    marker: Path
    rank: int = 0
    calls: int = 0

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> object:
        self.calls += 1
        first = not self.marker.exists() and int(os.environ.get("RANK", "0")) == self.rank
        if self.calls == self.at and first:
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.loss(model, batch)


def clicks() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, N_IDS, (330, N_FIELDS), generator=generator, dtype=torch.int32)
    truth = torch.randn(N_IDS, generator=generator)[ids.long()].sum(dim=1)
    label = torch.rand(len(ids), generator=generator) < torch.sigmoid(truth)
    return ids, label.float()


def sequences() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(2, LENGTH + 1, (60,), generator=generator)
    items = torch.randint(1, N_ITEMS, (60, LENGTH + 1), generator=generator)
    inside = torch.arange(LENGTH) < lengths[:, None]
    return items[:, :-1] * inside, items[:, 1:] * inside, lengths


def judge_clicks(model: nn.Module) -> dict[str, float]:
    ids, label = clicks()
    return {"logloss": float(binary_cross_entropy(model(ids), label))}


def judge_sequences(model: nn.Module) -> dict[str, float]:
    inputs, targets, _ = sequences()
    batch = {"inputs": inputs, "targets": targets}
    return {"loss_all": float(next_item_loss(model, batch)["next"])}


def build(kind: str, **changes: object) -> tuple[nn.Module, dict[str, object]]:
    """A fresh model and the other arguments of ``train``."""
    torch.manual_seed(0)
    common = {"seed": 5, "checkpoint_every": 3, "learning_rate": 0.01}
    if kind in ("ctr", "plain_ctr"):
        ids, label = clicks()
        plan = {"epochs": 3, "metric": "logloss", "better": "lower", "average": 0.8, "clip": 1.0}
        if kind == "plain_ctr":  # no dropout or batch statistics: processes must not matter
            plan |= {"average": 0.0, "precision": "float32"}
        source = TensorSource({"ids": ids, "label": label}, batch=32, seed=5)
        arguments = {"source": source, "loss": click_loss, "validate": judge_clicks}
        model: nn.Module = Clicker(noisy=kind == "ctr")
    elif kind == "sequence":
        inputs, targets, lengths = sequences()
        arrays = {"inputs": inputs, "targets": targets}
        source = BucketSource(arrays, lengths, tokens=60, seed=5, padded=tuple(arrays))
        plan = {"epochs": 3, "accumulate": 2, "schedule": "cosine", "warmup": 0.1}
        plan |= {"metric": "loss_all", "better": "lower"}
        arguments = {"source": source, "loss": next_item_loss, "validate": judge_sequences}
        arguments["count"] = count_of("targets")
        model = Follower()
    else:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 90}
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, tie_word_embeddings=True))
        texts = torch.randint(0, 90, (40, 10), generator=torch.Generator().manual_seed(6))
        groups = (Group(match="mlp", learning_rate=0.02),)
        plan = {"steps": 14, "weight_decay": 0.1, "groups": groups}
        source = TensorSource({"ids": texts}, batch=8, seed=5)
        arguments = {"source": source, "loss": text_loss, "validate": None}
    arguments.setdefault("count", count_rows)
    return model, arguments | {"plan": Plan(**(common | plan | changes))}


def run(
    kind: str, scratch: Path | None, *, kill_at: int = 0, kill_rank: int = 0, **changes: object
) -> tuple[Result, dict[str, Tensor]]:
    """Train one kind; its result and a copy of its weights."""
    model, arguments = build(kind, **changes)
    if kill_at:
        marker = scratch / "killed"
        arguments["loss"] = KillingLoss(arguments["loss"], kill_at, marker, kill_rank)
    result = train(model, scratch=scratch, **arguments)
    return result, {name: t.detach().clone() for name, t in changing_tensors(model).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("scratch", type=Path)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--kill-rank", type=int, default=0)
    parser.add_argument("--changes", type=json.loads, default={})
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.scratch.mkdir(parents=True, exist_ok=True)
    result, weights = run(
        given.kind,
        given.scratch,
        kill_at=given.kill_at,
        kill_rank=given.kill_rank,
        **given.changes,
    )
    from safetensors.torch import save_file

    save_file({name: t.contiguous() for name, t in weights.items()}, given.answer)
    given.answer.with_suffix(".json").write_text(json.dumps(result.history))


if __name__ == "__main__":
    main()
