"""Training and evaluation speed of our click models beside FuxiCTR's, on the same rows.

    python tools/bench_click_models.py --models deepfm dcnv2 --rounds 5
    python tools/bench_click_models.py --rows 20000 --rounds 1          # a try

22 categorical fields with 824,170 ids drawn by Zipf's law, embedding 16, MLP 400 × 3, Adam 1e-3,
batches of 4,096, one epoch; labels follow a known formula, whose AUC stands beside the models'.
Each round runs the peer, ours in float32, and ours in bfloat16 one after another, each in a process
of its own, so that other work on the machine hits all. One JSON line per system tells the medians
and the ratio of each round to the peer's: median and range. The peer lives in .venv-peers, which
`make bench` makes, or behind --peer; without it only ours are measured, and a line says so.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from peers import find_peer, medians, ratios

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.data.files import write_json  # noqa: E402
from lib.evaluate import clicks  # noqa: E402
from lib.models.fields import Sizes  # noqa: E402
from lib.models.ladder import build_click_model  # noqa: E402
from lib.studies.speed import describe_machine  # noqa: E402
from lib.train.loop import train  # noqa: E402
from lib.train.losses import binary_cross_entropy  # noqa: E402
from lib.train.plan import Plan  # noqa: E402
from lib.train.sources import TensorSource  # noqa: E402

FIELD_SIZES = (
    *(500_000, 200_000, 100_000, 5_000, 5_000, 4_000, 3_000, 2_000, 1_500, 1_000, 800),
    *(600, 400, 300, 200, 150, 100, 50, 30, 20, 10, 10),
)
SIZES = {
    "d_embedding": 16,
    "hidden": [400, 400, 400],
    "n_cross": 3,
    "maps": [128, 128],
    "learning_rate": 1e-3,
}
PARAMETERS = {
    "deepfm": {},
    "dcnv2": {"n_cross": SIZES["n_cross"]},
    "xdeepfm": {"maps": SIZES["maps"]},
}


def write_rows(folder: Path, n_train: int, n_test: int, seed: int) -> float:
    """Rows and labels for both sides; the AUC of the probabilities they were drawn from."""
    generator = np.random.default_rng(seed)
    n_rows, offsets = n_train + n_test, np.cumsum([0, *FIELD_SIZES[:-1]])
    local = np.stack(
        [(size ** generator.random(n_rows)).astype(np.int64) - 1 for size in FIELD_SIZES], axis=1
    )  # the inverse of Zipf's law with exponent 1
    ids = local + offsets
    weights = generator.normal(0, 0.25, sum(FIELD_SIZES))
    vectors = generator.normal(0, 0.35, (sum(FIELD_SIZES), 4))
    total = vectors[ids].sum(axis=1)
    pairs = 0.5 * ((total**2).sum(1) - (vectors[ids] ** 2).sum((1, 2)))
    logits = weights[ids].sum(axis=1) + 0.35 * pairs
    low, high = -20.0, 20.0
    for _ in range(60):  # the intercept that gives a click rate of 0.162
        middle = (low + high) / 2
        rate = (1 / (1 + np.exp(-(logits + middle)))).mean()
        low, high = (middle, high) if rate < 0.162 else (low, middle)
    probability = 1 / (1 + np.exp(-(logits + low)))
    labels = (generator.random(n_rows) < probability).astype(np.int64)
    for part, rows in (("train", slice(0, n_train)), ("test", slice(n_train, None))):
        columns = {f"f{i}": local[rows, i] for i in range(len(FIELD_SIZES))}
        np.savez(folder / f"{part}.npz", **columns, label=labels[rows])
        np.save(folder / f"{part}_ids.npy", ids[rows].astype(np.int32))
        np.save(folder / f"{part}_labels.npy", labels[rows].astype(np.int8))
    write_json(folder / "sizes.json", SIZES)
    features = [
        {f"f{i}": {"source": "", "type": "categorical", "vocab_size": size}}
        for i, size in enumerate(FIELD_SIZES)
    ]
    described = {"dataset_id": "bench", "labels": ["label"], "features": features}
    described |= {"num_fields": len(features), "total_features": sum(FIELD_SIZES)}
    write_json(folder / "feature_map.json", described | {"input_length": len(features)})
    return float(clicks.auc(labels[n_train:], probability[n_train:]))


def run_ours(folder: Path, kind: str, options: argparse.Namespace) -> dict[str, float]:
    """One epoch of ours through lib.train, then the test rows with AUC and log loss."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    arrays = {
        part: {
            "categorical": torch.from_numpy(np.load(folder / f"{part}_ids.npy")),
            "label": torch.from_numpy(np.load(folder / f"{part}_labels.npy")),
        }
        for part in ("train", "test")
    }
    sizes = Sizes(n_ids=sum(FIELD_SIZES), n_fields=len(FIELD_SIZES))
    common = {"d_embedding": SIZES["d_embedding"], "hidden": SIZES["hidden"], "dropout": 0.0}
    model = build_click_model(kind, sizes, common | PARAMETERS[kind])
    source = TensorSource(arrays["train"], batch=options.batch, seed=options.seed)
    plan = Plan(
        learning_rate=SIZES["learning_rate"],
        seed=options.seed,
        epochs=1,
        precision=options.precision,
        tables=options.tables,
    )

    # The first optimizer of a process loads torch's compiler, 1.6 s that no step needs; the peer
    # makes its own before its clock starts.
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    start = time.perf_counter()
    result = train(
        model,
        source,
        lambda net, batch: binary_cross_entropy(net(batch), batch["label"].float()),
        plan=plan,
    )
    train_seconds = time.perf_counter() - start
    start = time.perf_counter()
    probabilities = predict(model, arrays["test"]["categorical"], options)
    labels = arrays["test"]["label"].numpy()
    auc, logloss = clicks.auc(labels, probabilities), clicks.log_loss(labels, probabilities)
    test_seconds = time.perf_counter() - start
    return {
        "train_rows_per_second": len(arrays["train"]["label"]) / train_seconds,
        "test_rows_per_second": len(labels) / test_seconds,
        "auc": float(auc),
        "logloss": float(logloss),
        "precision": result.precision,
    }


@torch.no_grad()
def predict(model: torch.nn.Module, ids: torch.Tensor, options: argparse.Namespace) -> np.ndarray:
    model.eval()
    low = options.precision == "bfloat16"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        logits = [model({"categorical": part}) for part in ids.split(options.batch)]
    return torch.cat(logits).double().sigmoid().numpy()


def measure(command: list[str]) -> dict[str, float]:
    """Run a worker; its last line is the answer."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[:3]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(kind: str, folder: Path, options: argparse.Namespace) -> list[dict[str, object]]:
    """Interleaved rounds of one model; one row per system with medians."""
    shared = ["--batch", str(options.batch), "--threads", str(options.threads)]
    commands = {}
    if options.peer:
        script = str(ROOT / "tools" / "peer_fuxictr.py")
        commands["fuxictr"] = [str(options.peer), script, str(folder), kind, *shared]
    for precision in ("float32", "bfloat16"):
        own = [sys.executable, __file__, "--worker", str(folder), "--models", kind]
        own += [*shared, "--precision", precision, "--tables", options.tables]
        commands[f"ours {precision}"] = own
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for round_ in range(options.rounds):
        for name, command in commands.items():
            found[name].append(measure([*command, "--seed", str(round_ + 1)]))
            print(f"{kind}, round {round_ + 1}, {name}: {found[name][-1]}", file=sys.stderr)
    return [tell(kind, name, answers, found.get("fuxictr")) for name, answers in found.items()]


def tell(kind: str, name: str, answers: list, peers: list | None) -> dict[str, object]:
    """Medians of one system, and its speed in units of the peer's, round by round."""
    row: dict[str, object] = {"case": f"{kind}, {name}", "rounds": len(answers), **medians(answers)}
    if peers and answers is not peers:
        for part in ("train", "test"):
            speeds = ([a[f"{part}_rows_per_second"] for a in side] for side in (answers, peers))
            row[f"{part} against fuxictr"] = ratios(*speeds)
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="interpreter with fuxictr; else .venv-peers")
    parser.add_argument("--models", nargs="+", default=["deepfm"], choices=sorted(PARAMETERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=400_000, help="training rows; a fourth to test")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tables", default="lazy_adam", choices=["lazy_adam", "row_adagrad"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(run_ours(options.worker, options.models[0], options)))
        return
    options.peer = find_peer("fuxictr", options.peer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        oracle = write_rows(folder, options.rows, options.rows // 4, options.seed)
        rows = [row for kind in options.models for row in compare(kind, folder, options)]
    print(json.dumps({"case": "the true probabilities", "auc": oracle}))
    if options.out:
        settings = {"rows": options.rows, "batch": options.batch, "threads": options.threads}
        write_json(options.out, {"machine": describe_machine(), "oracle_auc": oracle,
                                 "settings": settings, "measured": rows})  # fmt: skip


if __name__ == "__main__":
    main()
