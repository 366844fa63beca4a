"""A proposed profile runs to its end: the command, then the notebooks, as a person would."""

import json
import math
import os
import subprocess
import sys

import pytest

from lib.pipeline.profile import CODE_ROOT
from tests.studies.proposal_files import click_rows, german_csv, purchases, write_lines

# Ten notebooks on a few hundred rows; smaller models change nothing that init decides.
SMALLER = {"epochs: 15": "epochs: 1", "epochs: 30": "epochs: 1", "epochs: 20": "epochs: 1",
           "steps: 50": "steps: 3", "rounds: 200": "rounds: 10", "iterations: 300": "iterations: 250",
           "seeds: [1, 2]": "seeds: [1]"}  # fmt: skip


@pytest.fixture
def project(tmp_path):
    """A folder with the real notebooks, and a way to say commands in it."""
    root = tmp_path / "mein Projekt"
    (root / "params").mkdir(parents=True)
    (root / "notebooks").symlink_to(CODE_ROOT / "notebooks")

    def say(*words):
        environment = {**os.environ, "LINGREC_HOME": str(root), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, str(CODE_ROOT / "run_all.py"), *words], cwd=tmp_path, text=True,
            env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return root, say


def run_to_the_end(project, name, *words):
    root, say = project
    made = say("init", name, *words)
    assert made.returncode == 0, made.stderr
    assert say(name, "--explain").returncode == 0
    profile = root / "params" / f"{name}.yaml"
    text = profile.read_text("utf-8")
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    profile.write_text(text, "utf-8")
    ran = say(name)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert (root / "reports" / "index.html").is_file()
    metrics = json.loads((root / "reports" / "metrics.json").read_text("utf-8"))
    assert all(math.isfinite(each["value"]) for each in metrics)
    return {(each["node"], each["row"], each["metric"]): each["value"] for each in metrics}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_german_click_log_becomes_a_report(project, tmp_path):
    found = run_to_the_end(
        project, "deutsch", "--clicks", str(german_csv(tmp_path / "klicks.csv", 1500))
    )
    assert found["clicks", "train", "rows"] == pytest.approx(1200, abs=20)
    assert found["baselines", "logistic regression", "auc"] > 0.6  # colour, price and hour tell
    assert ("ladder", "DeepFM, hold-out", "auc") in found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_log_with_histories_becomes_a_report(project, tmp_path):
    lines = ["visitor,ad,price,seen,label"]
    for n, row in enumerate(click_rows(900)):
        seen = ",".join(str((n * k) % 40) for k in range(1, 2 + n % 5))
        lines.append(f'{row["user"]},ad{n % 17},{row["price"]},"{seen}",{row["clicked"]}')
    found = run_to_the_end(
        project, "events", "--clicks", str(write_lines(tmp_path / "log.csv", lines))
    )
    assert {"din", "dare"} <= {node for node, _, _ in found}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_json_lines_with_titles_become_a_report(project, tmp_path):
    path = write_lines(tmp_path / "log.jsonl", [
        json.dumps({"user": u, "item": i, "time": t}) for u, i, t in purchases(120, 80)])  # fmt: skip
    titles = write_lines(tmp_path / "titles.csv", ["item,title"] + [
        f'i{n},"Grüner Becher Nummer {n // 4}, Farbe {n % 4}"' for n in range(80)])  # fmt: skip
    found = run_to_the_end(project, "shop", "--sequences", str(path), "--titles", str(titles))
    # everybody walks along the catalogue: what follows what is nearly all there is to know
    markov = found["sasrec", "Markov", "ndcg@10"]
    assert markov > 0.95 > found["sasrec", "popularity", "ndcg@10"]
    assert ("soft_tokens_study", "pretrained", "ndcg@10") in found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_movielens_file_without_titles_becomes_a_report(project, tmp_path):
    lines = [f"{u}::{i}::{n % 5 + 1}::{t}" for n, (u, i, t) in enumerate(purchases(120, 80))]
    path = write_lines(tmp_path / "ratings.dat", lines)
    found = run_to_the_end(project, "ratings", "--sequences", str(path))
    assert ("soft_tokens_study", "random", "ndcg@10") in found
