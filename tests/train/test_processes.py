"""Two real processes: the same numbers as one, and back to life after one of them is killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train import runs

SCRIPT = Path(runs.__file__)


def run_apart(kind, folder, *options, changes):
    """Train in a script of its own, since the launcher starts copies of the main module."""
    command = [sys.executable, str(SCRIPT), kind, str(folder / "scratch"), str(folder / "answer")]
    ended = subprocess.run(
        [*command, *options, "--changes", json.dumps(changes)], capture_output=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr.decode()[-3000:]
    history = json.loads((folder / "answer.json").read_text())
    return load_file(folder / "answer"), history


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    changes = {"processes": 2, "accumulate": 2, "average": 0.7}
    weights, history = run_apart("plain_ctr", tmp_path, changes=changes)
    alone, expected = runs.run("plain_ctr", None, **(changes | {"processes": 1}))
    for row, ours in zip(history, alone.history, strict=True):
        assert row["step"] == ours["step"]
        assert row["loss"] == pytest.approx(ours["loss"], rel=1e-5)
        assert row["logloss"] == pytest.approx(ours["logloss"], rel=1e-4)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_killed_process_comes_back_and_the_run_ends_with_the_same_bits(tmp_path):
    changes = {"processes": 2, "restarts": 1}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    options = ("--kill-at", "17", "--kill-rank", "1")
    weights, history = run_apart("ctr", tmp_path / "a", *options, changes=changes)
    assert (tmp_path / "a" / "scratch" / "killed").exists()
    expected, whole = run_apart("ctr", tmp_path / "b", changes=changes)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert [row["logloss"] for row in history] == [row["logloss"] for row in whole]


@pytest.mark.slow
def test_a_language_model_in_shards_trains_as_a_whole_one(tmp_path):
    changes = {"precision": "float32", "sharding": "shard", "clip": 1.0, "average": 0.5}
    weights, history = run_apart("text", tmp_path, changes=changes | {"processes": 2})
    alone, expected = runs.run("text", None, **changes)
    losses = [row["loss"] for row in alone.history]
    assert [row["loss"] for row in history] == pytest.approx(losses, rel=1e-4)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-2, atol=2e-3)
