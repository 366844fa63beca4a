"""SASRec beside RecBole's: targets trained a second, full ranking, and quality after equal time.

    python tools/bench_sasrec.py                         # about a quarter of an hour with the peer
    python tools/bench_sasrec.py --users 300 --lengths 50 --rounds 1 --steps 2 --quality-seconds 5

Both: two layers of 64, two heads, 256 inside, dropout .2, cross-entropy over all items.  RecBole
1.2.1 makes one row of L positions for every target and learns at the last one, as it always does;
ours learns at all positions of a sequence.  Rounds alternate; medians and the range of the ratios
are printed as one JSON line per case.  MovieLens-1M is read from ``--pairs`` (user item, in time
order); where it is absent, sequences of the same sizes are drawn, and quality means nothing.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from peers import PeerSession, find_peer, medians, ratios

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.data.files import write_json
from lib.data.histories import Histories, write_histories
from lib.data.splits import split_last
from lib.evaluate import ranking
from lib.models.item_inputs import build_item_input
from lib.models.sasrec import SASRec, SASRecConfig
from lib.studies.sequences import rank_split, sample_targets, train_sasrec
from lib.studies.speed import describe_machine
from lib.train.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
USERS_PER_STEP = {50: 128, 200: 64}


def read_sequences(pairs: Path, n_users: int) -> tuple[list[np.ndarray], bool]:
    """Items of each user, oldest first, from 1; without a file, drawn ones of ML-1M's sizes."""
    if pairs.exists():
        table = np.loadtxt(pairs, dtype=np.int64)
        users = np.unique(table[:, 0], return_inverse=True)[1]
        items = np.unique(table[:, 1], return_inverse=True)[1]
        order = np.argsort(users, kind="stable")
        cuts = np.flatnonzero(np.diff(users[order])) + 1
        return np.split(items[order] + 1, cuts)[:n_users], True
    generator = np.random.default_rng(1)
    lengths = np.clip(generator.lognormal(4.6, 1.0, n_users), 20, 2_300).astype(int)
    chance = 1 / np.arange(1, 3_417)
    return [generator.choice(3_416, n, p=chance / chance.sum()) + 1 for n in lengths], False


def make_histories(folder: Path, sequences: list[np.ndarray]) -> Histories:
    offsets = np.cumsum([0, *map(len, sequences)])
    items = np.concatenate(sequences)
    split = split_last(offsets)
    keys = ["", *map(str, range(1, int(items.max()) + 1))]
    return write_histories(
        folder, items=items, times=np.arange(len(items)), offsets=offsets, targets=split.targets,
        item_keys=keys, titles=[""] * len(keys), made={}, train_lengths=split.train_lengths,
    )  # fmt: skip


def make_model(histories: Histories, max_len: int) -> SASRec:
    torch.manual_seed(1)
    config = SASRecConfig(n_dims=64, n_layers=2, n_heads=2, d_inner=256, max_len=max_len,
                          dropout=0.2, score="cosine", temperature=0.07)  # fmt: skip
    return SASRec(build_item_input("id", n_items=histories.n_items, n_dims=64), config)


class Ours:
    """Our side with the same two requests as the peer."""

    def __init__(self, histories: Histories, max_len: int, precision: str) -> None:
        self.histories, self.max_len, self.precision = histories, max_len, precision
        self.model = make_model(histories, max_len)

    def train(self, steps: int) -> dict[str, float]:
        few = sample_targets(self.histories.targets["valid"], 64, seed=1)
        plan = Plan(learning_rate=3e-3, seed=1, steps=steps, batch=USERS_PER_STEP[self.max_len],
                    precision=self.precision, checkpoint_seconds=1e9)  # type: ignore[arg-type]  # fmt: skip
        result = train_sasrec(self.model, self.histories, plan, valid=few, filter_seen=False)
        return {"targets_per_second": result.terms_per_second, "steps": result.steps,
                "seconds": result.seconds}  # fmt: skip

    def evaluate(self, *, filter_seen: bool = False) -> dict[str, float]:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            ranked = rank_split(self.model, self.histories, self.histories.targets["test"],
                                filter_seen=filter_seen)  # fmt: skip
        taken = time.perf_counter() - begun
        values = ranking.summarise(ranked.ranks, ks=[10], measures=["hit", "ndcg"])
        return {"evaluation_seconds": taken, **values}


def compare(histories: Histories, folder: Path, max_len: int, options: argparse.Namespace) -> list:
    """Alternating rounds of training steps and of full rankings at one length of history."""
    systems = {p: Ours(histories, max_len, p) for p in options.precisions}
    python = find_peer("recbole", options.peer)
    peer = None
    if python:
        command = [str(python), str(ROOT / "tools" / "peer_recbole.py"), str(folder)]
        peer = PeerSession([*command, "--max-len", str(max_len), "--threads", str(options.threads)])
        peer.ask(do="train", steps=1)  # the first step of a process allocates
    found: dict[str, list[dict[str, float]]] = {name: [] for name in [*systems, "recbole"]}
    for ours in systems.values():
        ours.train(2)
        ours.evaluate()
    for _ in range(options.rounds):
        if peer:
            found["recbole"].append(
                peer.ask(do="train", steps=options.steps) | peer.ask(do="evaluate")
            )
        for name, ours in systems.items():
            found[name].append(ours.train(4 * options.steps) | ours.evaluate())
    lines = [tell(name, max_len, found) for name in systems]
    if options.quality_seconds:
        lines += quality(histories, max_len, found, peer, options)
    if peer:
        peer.close()
    return lines


def tell(name: str, max_len: int, found: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    theirs, ours = found["recbole"], found[name]
    line: dict[str, object] = {
        "case": f"SASRec, {max_len} positions, {name}",
        "ours": medians(ours),
    }
    if theirs:
        line["recbole"] = medians(theirs)
        speeds = [[a["targets_per_second"] for a in side] for side in (ours, theirs)]
        line["targets a second"] = ratios(*speeds)
        rates = [[1 / a["evaluation_seconds"] for a in side] for side in (ours, theirs)]
        line["full ranking"] = ratios(*rates)
    return line


def quality(
    histories: Histories,
    max_len: int,
    found: dict[str, list[dict[str, float]]],
    peer: PeerSession | None,
    options: argparse.Namespace,
) -> list[dict[str, object]]:
    """Ours from the start for so many seconds of training, then the peer for as many."""
    precision = options.precisions[-1]
    timed = medians(found[precision])
    steps = int(options.quality_seconds * timed["steps"] / timed["seconds"])
    ours = Ours(histories, max_len, precision)
    trained = ours.train(max(1, steps))
    filtered, plain = ours.evaluate(filter_seen=True), ours.evaluate()
    line: dict[str, object] = {
        "case": f"quality after {options.quality_seconds:g} s, {max_len} positions, {precision}",
        "ours": {"seconds": trained["seconds"], "ndcg@10 filtered": filtered["ndcg@10"],
                 "hit@10 filtered": filtered["hit@10"], "ndcg@10": plain["ndcg@10"]},
    }  # fmt: skip
    if peer:
        spent = sum(a["seconds"] for a in found["recbole"])
        peer.ask(do="train", seconds=max(0.0, options.quality_seconds - spent))
        line["recbole"] = peer.ask(do="evaluate")
    return [line]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=Path, default=ROOT / "data" / "raw" / "ml-1m" / "pairs.txt")
    parser.add_argument("--peer", type=Path, help="interpreter with RecBole; else .venv-peers")
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200], choices=[50, 200])
    parser.add_argument("--precisions", nargs="+", default=None, choices=["float32", "bfloat16"])
    parser.add_argument("--users", type=int, default=6_040, help="fewer for a try")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=8, help="of the peer in a round; ours: fourfold"
    )
    parser.add_argument("--quality-seconds", type=float, default=75.0, help="0 leaves it out")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="write all lines as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    half = ["bfloat16"] if torch.cpu._is_avx512_bf16_supported() else []
    options.precisions = options.precisions or ["float32", *half]
    sequences, real = read_sequences(options.pairs, options.users)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = (" ".join(map(str, sequence)) for sequence in sequences)
        (folder / "sequences.txt").write_text("\n".join(rows))
        histories = make_histories(folder / "histories", sequences)
        for max_len in options.lengths:
            for line in compare(histories, folder, max_len, options):
                lines.append(line | {"data": "MovieLens-1M" if real else "drawn, ML-1M's sizes"})
                print(json.dumps(lines[-1]), flush=True)
    if options.out:
        write_json(options.out, {"machine": describe_machine(), "threads": options.threads,
                                 "measured": lines})  # fmt: skip


if __name__ == "__main__":
    main()
