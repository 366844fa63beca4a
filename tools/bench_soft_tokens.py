"""The figures of the soft-token recommender, each task in a process of its own, as JSON on stdout.

    python tools/bench_soft_tokens.py                     # all, about five minutes on two cores
    python tools/bench_soft_tokens.py --tasks ranking dry --scale 0.1

step_*      one training step at 349,000 items, 64 users × 50 positions, d = 128, small backbone:
            plain softmax, exact chunks, sample; peak memory beside that of the process before
candidates  1 + 100 candidates for 10,000 users: ours, and set arithmetic on a part of them
negatives   30 training negatives for each of 3,200 positions, likewise
ranking     10,000 users over 349,000 items
tuned, frozen   a step of a 12-layer trunk of 768, its gradients, its optimizer
dry         steps and a validation of the whole model at the size of the Kindle profile
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3Model

from lib.evaluate import candidates, ranking
from lib.language.attention import FUSED
from lib.models.soft_token import SoftTokenConfig, SoftTokenRecommender
from lib.studies.negatives import ItemSampler
from lib.studies.soft_token_loss import LossConfig, SoftTokenLoss
from lib.train.optimizers import Optimizer
from lib.train.plan import Plan

N_USERS, N_ITEMS, D, USERS, LENGTH = 100_000, 349_000, 128, 64, 50
LOSS = {"softmax": "full", "full_up_to": 0, "n_sampled": 8_192, "collaborative": 1.0, "bpr": 0.0,
        "regularisation": 0.0, "lambda_c": 0.001, "n_negatives": 30, "pool": "shared"}  # fmt: skip
GOALS = {
    "memory": "plain / chunks at least 10", "speed": "plain / sampled at least 10",
    "gradient": "chunks and plain equal to 1e-5", "candidates": "at least 100 × set arithmetic",
    "ranking": "60 s on two cores, under 2 GiB", "frozen": "a step at most half the tuned one's",
}  # fmt: skip


@dataclass(frozen=True)
class Purchases:
    """As much of Histories as the sampler of items reads, with random purchases."""

    n_items: int
    items: np.ndarray
    offsets: np.ndarray

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def train_lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def counts(self) -> np.ndarray:
        return np.bincount(self.items, minlength=self.n_items + 1).astype(np.int32)

    def seen(self, _users: np.ndarray, _positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.offsets, self.items


def purchases(n_users: int, n_items: int) -> Purchases:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 13, n_users) + 2, 200)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.minimum(n_items * rng.random(offsets[-1]) ** 2 + 1, n_items).astype(np.int32)
    return Purchases(n_items, items, offsets)


def make_trunk(d: int, layers: int) -> Qwen3Model:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=8, hidden_size=d, num_hidden_layers=layers, num_attention_heads=d // 32,
        num_key_value_heads=d // 32, head_dim=32, intermediate_size=8 * d // 3,
        max_position_embeddings=256, pad_token_id=None, attn_implementation=FUSED,
    )  # fmt: skip
    return Qwen3Model(config)


def make_model(
    trunk: Qwen3Model, n_users: int, n_items: int, *, sparse: bool
) -> SoftTokenRecommender:
    config = SoftTokenConfig(n_users=n_users, n_items=n_items, d_rec=D, max_len=LENGTH,
                             score="dot", temperature=1.0, sparse_items=sparse)  # fmt: skip
    return SoftTokenRecommender(trunk, config).train()


def make_batch(n_users: int, n_items: int, users: int = USERS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    items = torch.randint(1, n_items + 1, (users, LENGTH), generator=generator)
    people = torch.randperm(n_users, generator=generator)[:users]
    return {"users": people, "items": items, "predict": torch.ones_like(items, dtype=torch.bool)}


def peak_mib() -> float:
    """Most memory held since the start, or since ``fresh_peak``."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def fresh_peak() -> float:
    """Forget the peak of building the model, where Linux allows it; what is held now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    return peak_mib()


def time_steps(step: Callable[[], Any], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def plain(model: SoftTokenRecommender, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    items = batch["items"]
    states = model(batch["users"], items[:, :-1]).flatten(0, 1)
    logits = states @ model.item_table()[1:].T  # (3,200, 349,000)
    return {"softmax": torch.nn.functional.cross_entropy(logits, items.flatten() - 1)}


def bench_step(kind: str, scale: float, repeats: int) -> dict[str, Any]:
    n_items = int(N_ITEMS * scale)
    model = make_model(make_trunk(96, 3), N_USERS, n_items, sparse=kind == "sampled")
    optimizer = Optimizer(model, Plan(learning_rate=1e-3, seed=1, steps=1))
    batch, loss = make_batch(N_USERS, n_items), plain
    if kind != "plain":
        form = LOSS | {"softmax": "sampled" if kind == "sampled" else "full"}
        loss = SoftTokenLoss(LossConfig(**form), ItemSampler(purchases(N_USERS, n_items)))
    before = fresh_peak()
    gradient = {}

    def step() -> None:
        sum(loss(model, batch).values()).backward()
        if kind != "sampled" and not gradient:
            gradient.update(table=model.items.weight.grad[:2000].clone(),
                            out=model.out.weight.grad.clone())  # fmt: skip
        optimizer.step(optimizer.touched(), 1.0)

    seconds = time_steps(step, repeats)
    if gradient:  # both forms meet here, in a file named after the scale
        folder = Path(tempfile.gettempdir()) / f"bench-soft-tokens-{n_items}"
        folder.mkdir(exist_ok=True)
        np.savez(folder / f"{kind}.npz", **{k: v.numpy() for k, v in gradient.items()})
    return {"seconds": seconds, "extra_mib": peak_mib() - before, "peak_mib": peak_mib()}


def bench_candidates(scale: float, repeats: int) -> dict[str, Any]:
    n_users, n_items = int(10_000 * scale), int(N_ITEMS * scale)
    bought = purchases(n_users, n_items)
    targets = bought.items[bought.offsets[1:] - 1]
    own = (bought.offsets, bought.items)
    seconds = time_steps(lambda: candidates.sample_candidates(targets, own, n_items, 100), repeats)
    rng, few = np.random.default_rng(0), min(20, n_users)
    started = time.perf_counter()
    for user in range(few):
        mine = set(bought.items[bought.offsets[user] : bought.offsets[user + 1]].tolist())
        rng.choice(np.fromiter(set(range(1, n_items + 1)) - mine, np.int64), 100, replace=False)
    peer = (time.perf_counter() - started) / few
    return {"ms_per_user": 1e3 * seconds / n_users, "set_ms_per_user": 1e3 * peer,
            "times_faster": peer / (seconds / n_users)}  # fmt: skip


def bench_negatives(scale: float, repeats: int) -> dict[str, Any]:
    n_items = int(N_ITEMS * scale)
    bought = purchases(N_USERS, n_items)
    sampler = ItemSampler(bought)
    users = torch.randint(0, N_USERS, (USERS,)).repeat_interleave(LENGTH)
    seconds = time_steps(lambda: sampler.negatives(users, 30), max(5, repeats))
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    for user in users[:: LENGTH * 6].tolist():
        mine = set(bought.items[bought.offsets[user] : bought.offsets[user + 1]].tolist())
        rng.choice(np.fromiter(set(range(1, n_items + 1)) - mine, np.int64), 30, replace=False)
    peer = (time.perf_counter() - started) / len(users[:: LENGTH * 6])
    each = seconds / len(users)
    return {"ms_per_position": 1e3 * each, "set_ms_per_position": 1e3 * peer,
            "times_faster": peer / each}  # fmt: skip


def bench_ranking(scale: float, _repeats: int) -> dict[str, Any]:
    n_users, n_items = int(10_000 * scale), int(N_ITEMS * scale)
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(n_users, D, generator=generator)
    items = torch.randn(n_items + 1, D, generator=generator)
    bought = purchases(n_users, n_items)
    targets = bought.items[bought.offsets[1:] - 1]
    started = time.perf_counter()
    ranks = ranking.rank_targets(users, items, targets, (bought.offsets, bought.items))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mib": peak_mib(), "mean_rank": float(ranks.mean())}


def bench_trunk(kind: str, scale: float, repeats: int) -> dict[str, Any]:
    trunk = make_trunk(768, 12)
    if kind == "frozen":
        trunk.requires_grad_(False)
    n_items = int(N_ITEMS * scale)
    model = make_model(trunk, N_USERS, n_items, sparse=True)
    optimizer = Optimizer(model, Plan(learning_rate=1e-4, seed=1, steps=1))
    form = LossConfig(**LOSS | {"softmax": "sampled", "n_sampled": 512})
    loss = SoftTokenLoss(form, ItemSampler(purchases(N_USERS, n_items)))
    batch, before = make_batch(N_USERS, n_items, users=8), fresh_peak()

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(model, batch)
        sum(found.values()).backward()
        optimizer.step(optimizer.touched(), 1.0)

    seconds = time_steps(step, max(2, repeats))
    held = sum(p.numel() * 4 for p in trunk.parameters() if p.requires_grad)
    return {
        "seconds": seconds,
        "extra_mib": peak_mib() - before,
        "trunk_gradient_mib": held / 2**20,
    }


def bench_dry(scale: float, repeats: int) -> dict[str, Any]:
    n_items = int(N_ITEMS * scale)
    bought = purchases(N_USERS, n_items)
    model = make_model(make_trunk(96, 3), N_USERS, n_items, sparse=True)
    optimizer = Optimizer(model, Plan(learning_rate=1e-3, seed=1, steps=1))
    form = LossConfig(**LOSS | {"softmax": "auto", "bpr": 1.0})
    loss = SoftTokenLoss(form, ItemSampler(bought))
    batch = make_batch(N_USERS, n_items)

    def step() -> None:
        sum(loss(model, batch).values()).backward()
        optimizer.step(optimizer.touched(), 1.0)

    seconds = time_steps(step, max(3, repeats))
    model.eval()
    vectors = model.user_vectors(batch["users"], batch["items"], torch.full((USERS,), LENGTH))
    own = bought.offsets[: USERS + 1]
    ranks = ranking.rank_targets(vectors, model.item_vectors(), batch["items"][:, 0].numpy(),
                                 (own, bought.items[: own[-1]]))  # fmt: skip
    return {"seconds_per_step": seconds, "peak_mib": peak_mib(), "users": N_USERS,
            "items": n_items, "interactions": len(bought.items),
            "mean_rank": float(ranks.mean())}  # fmt: skip


TASKS: dict[str, Callable[[float, int], dict[str, Any]]] = {
    "step_plain": lambda s, r: bench_step("plain", s, r),
    "step_chunks": lambda s, r: bench_step("chunks", s, r),
    "step_sampled": lambda s, r: bench_step("sampled", s, r),
    "candidates": bench_candidates,
    "negatives": bench_negatives,
    "ranking": bench_ranking,
    "tuned": lambda s, r: bench_trunk("tuned", s, r),
    "frozen": lambda s, r: bench_trunk("frozen", s, r),
    "dry": bench_dry,
}


def compare(found: dict[str, dict[str, Any]], n_items: int) -> dict[str, float]:
    """The ratios that the goals speak of, as far as their tasks were run."""
    ratios: dict[str, float] = {}
    if {"step_plain", "step_chunks"} <= found.keys():
        ratios["memory: plain / chunks"] = (
            found["step_plain"]["extra_mib"] / found["step_chunks"]["extra_mib"]
        )
        folder = Path(tempfile.gettempdir()) / f"bench-soft-tokens-{n_items}"
        one, two = (np.load(folder / f"{k}.npz", allow_pickle=False) for k in ("plain", "chunks"))
        ratios["largest gradient difference"] = float(
            max(np.abs(one[name] - two[name]).max() for name in one.files)
        )
    if {"step_plain", "step_sampled"} <= found.keys():
        ratios["speed: plain / sampled"] = (
            found["step_plain"]["seconds"] / found["step_sampled"]["seconds"]
        )
    if {"tuned", "frozen"} <= found.keys():
        ratios["step: frozen / tuned"] = found["frozen"]["seconds"] / found["tuned"]["seconds"]
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--scale", type=float, default=1.0, help="of users and items")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="run one task in this process")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(TASKS[options.tasks[0]](options.scale, options.repeats)))
        return
    found = {}
    for task in options.tasks:
        command = [sys.executable, __file__, "--alone", "--tasks", task,
                   "--scale", str(options.scale), "--repeats", str(options.repeats)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told = done.stdout.strip().splitlines()
        if done.returncode == 0:
            found[task] = json.loads(told[-1])
        else:
            reason = done.stderr.strip().splitlines()[-1:] or [f"signal {-done.returncode}"]
            found[task] = {"failed": reason[0]}
    whole = {task: values for task, values in found.items() if "failed" not in values}
    ratios = compare(whole, int(N_ITEMS * options.scale))
    told = {"threads": torch.get_num_threads(), "scale": options.scale, "goals": GOALS,
            "tasks": found, "ratios": ratios}  # fmt: skip
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
