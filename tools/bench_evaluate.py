"""Speed and memory of lib.evaluate beside what people would otherwise use, as JSON on stdout.

    python tools/bench_evaluate.py            # the sizes of the goals, about three minutes
    python tools/bench_evaluate.py --scale 0.01 --tasks auc ranking

Each task runs in a process of its own, so that its peak memory is its own. ``seconds`` are medians
over the repeats; a peer measured on a part of the work says so in ``peer_part`` and its seconds are
brought to the whole.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.evaluate import candidates, clicks, ranking, uncertainty

GOALS = {
    "ranking": "3 s, under 1.5 GiB", "candidates": "3 s", "candidates_popular": "3 s",
    "bootstrap": "10 s", "auc": "twice as fast as scikit-learn, same value",
}  # fmt: skip


def median_seconds(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), result


def users_and_items(n_users: int, n_items: int, d: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 15, n_users)
    return (
        rng.normal(size=(n_users, d)).astype(np.float32),
        rng.normal(size=(n_items + 1, d)).astype(np.float32),
        rng.integers(1, n_items + 1, n_users),
        np.r_[0, np.cumsum(lengths)],
        rng.integers(1, n_items + 1, lengths.sum()),
    )


def bench_ranking(scale: float, peer: bool) -> dict[str, Any]:
    n_users, n_items = int(22_363 * scale), 12_101
    users, items, targets, offsets, seen = users_and_items(n_users, n_items, 64)
    ks = (1, 5, 10, 20, 50)
    if not peer:

        def ours() -> dict[str, float]:
            ranks = ranking.rank_targets(users, items, targets, (offsets, seen))
            return ranking.summarise(ranks, ks, ("hit", "recall", "ndcg", "mrr"))

        seconds, means = median_seconds(ours, 5)
        return {"seconds": seconds, "value": means["ndcg@10"], "users": n_users, "items": n_items}
    import torch  # the peer: scatter the history to minus infinity, then the 50 best by topk

    def by_topk() -> float:
        total, table, people = 0.0, torch.tensor(items), torch.tensor(users)
        for start in range(0, n_users, 1024):
            rows = slice(start, min(start + 1024, n_users))
            scores = people[rows] @ table.T
            who = np.repeat(np.arange(rows.stop - start), np.diff(offsets[start : rows.stop + 1]))
            what = seen[offsets[start] : offsets[rows.stop]]
            other = what != targets[rows][who]
            scores[who[other], what[other]] = -torch.inf
            scores[:, 0] = -torch.inf
            best = scores.topk(max(ks)).indices.numpy()
            place = (best == targets[rows][:, None])[:, :10]
            total += (place / np.log2(np.arange(2, 12))).sum()
        return float(total / n_users)

    seconds, value = median_seconds(by_topk, 3)
    return {"peer": "torch topk(50) after a scatter", "peer_seconds": seconds, "peer_value": value}


def bench_candidates(scale: float, peer: bool, popular: bool = False) -> dict[str, Any]:
    n_users, n_items = int(100_000 * scale), 12_101
    _, _, targets, offsets, seen = users_and_items(n_users, n_items, 1)
    counts = np.r_[0, 100_000 // np.arange(1, n_items + 1)] if popular else None
    if not peer:
        seconds, drawn = median_seconds(
            lambda: candidates.sample_candidates(
                targets, (offsets, seen), n_items, 100, popularity=counts
            ),
            5,
        )
        return {"seconds": seconds, "value": float(drawn.mean()), "users": n_users}
    rng, part = np.random.default_rng(0), min(n_users, 2_000)
    weights = None if counts is None else counts / counts.sum()

    def one_by_one() -> float:
        total = 0.0
        for row in range(part):
            free = np.ones(n_items + 1, dtype=bool)
            free[[0, targets[row], *seen[offsets[row] : offsets[row + 1]]]] = False
            pool = np.flatnonzero(free)
            p = None if weights is None else weights[pool] / weights[pool].sum()
            total += rng.choice(pool, 100, replace=False, p=p).mean()
        return total / part

    seconds, value = median_seconds(one_by_one, 1)
    return {
        "peer": "numpy mask and choice, user by user", "peer_seconds": seconds * n_users / part,
        "peer_value": value, "peer_part": part / n_users,
    }  # fmt: skip


def bench_bootstrap(scale: float, peer: bool) -> dict[str, Any]:
    n_users, rng = int(100_000 * scale), np.random.default_rng(0)
    a, b = rng.normal(0.01, 1, n_users), rng.normal(0, 1, n_users)
    if not peer:
        seconds, result = median_seconds(lambda: uncertainty.paired_bootstrap(a, b), 3)
        ranks = rng.integers(1, 200, (2, n_users)).astype(float)
        few, _ = median_seconds(
            lambda: uncertainty.paired_bootstrap(*(ranking.ndcg(r, 10) for r in ranks)), 3
        )
        swap, _ = median_seconds(lambda: uncertainty.paired_permutation(a, b), 3)
        return {
            "seconds": seconds, "value": [result.low, result.high], "users": n_users,
            "seconds_ndcg": few, "seconds_permutation": swap,
        }  # fmt: skip
    from scipy.stats import bootstrap

    draws = max(10, int(500 * min(1, scale * 10)))
    seconds, result = median_seconds(
        lambda: (
            bootstrap(
                (a - b,), np.mean, n_resamples=draws, method="percentile", batch=50, rng=rng
            ).confidence_interval
        ),
        1,
    )
    return {
        "peer": "scipy.stats.bootstrap", "peer_seconds": seconds * 10_000 / draws,
        "peer_value": list(result), "peer_part": draws / 10_000,
    }  # fmt: skip


def bench_auc(scale: float, peer: bool, dtype: str = "float32") -> dict[str, Any]:
    n_rows, rng = int(10_000_000 * scale), np.random.default_rng(0)
    logit = rng.normal(-1.8, 1.2, n_rows)
    p = (1 / (1 + np.exp(-logit))).astype(dtype)
    labels = (rng.random(n_rows) < p).astype(np.int8)
    del logit
    if not peer:
        seconds, value = median_seconds(lambda: clicks.rank_quality(labels, p), 5)
        return {"seconds": seconds, "value": value, "rows": n_rows}
    from sklearn.metrics import average_precision_score, roc_auc_score

    seconds, value = median_seconds(
        lambda: (float(roc_auc_score(labels, p)), float(average_precision_score(labels, p))), 3
    )
    return {"peer": "scikit-learn", "peer_seconds": seconds, "peer_value": value}


TASKS: dict[str, Callable[[float, bool], dict[str, Any]]] = {
    "ranking": bench_ranking,
    "candidates": bench_candidates,
    "candidates_popular": lambda scale, peer: bench_candidates(scale, peer, popular=True),
    "bootstrap": bench_bootstrap,
    "auc": bench_auc,
    "auc_float64": lambda scale, peer: bench_auc(scale, peer, dtype="float64"),
}


def run_alone(task: str, scale: float, peer: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--alone", task, "--scale", str(scale)]
    done = subprocess.run(
        [*command, *(["--peer"] if peer else [])], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def rows(names: list[str], scale: float) -> Iterator[dict[str, Any]]:
    for name in names:
        row = {"task": name, "goal": GOALS.get(name), **run_alone(name, scale, peer=False)}
        row |= run_alone(name, scale, peer=True)
        yield row | {"times_faster": row["peer_seconds"] / row["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--scale", type=float, default=1.0, help="of users and rows")
    parser.add_argument("--alone", choices=list(TASKS), help=argparse.SUPPRESS)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        result = TASKS[options.alone](options.scale, options.peer)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(result | {"peer_peak_gib" if options.peer else "peak_gib": peak}))
        return
    print(json.dumps(list(rows(options.tasks, options.scale)), indent=2))


if __name__ == "__main__":
    main()
