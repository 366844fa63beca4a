"""A run that is killed and resumed ends with the same bits as one that was left alone."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lib.train import checkpoint
from lib.train.loop import train
from tests.train import runs

SCRIPT = Path(runs.__file__)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the killed process: sums are split by threads
    yield
    torch.set_num_threads(before)


def without_seconds(history):
    return [{name: v for name, v in row.items() if name != "seconds"} for row in history]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kill_at"), [("ctr", 17), ("sequence", 15), ("text", 11)])
def test_a_killed_run_resumes_to_the_same_bits(kind, kill_at, tmp_path):
    scratch = tmp_path / "scratch"
    command = [sys.executable, str(SCRIPT), kind, str(scratch), str(tmp_path / "answer")]
    killed = subprocess.run([*command, "--kill-at", str(kill_at)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    at = json.loads((scratch / "checkpoint.json").read_text())["step"]
    whole, expected = runs.run(kind, None)
    assert 0 < at < whole.steps
    resumed, weights = runs.run(kind, scratch)
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
    assert without_seconds(resumed.history) == without_seconds(whole.history)


@pytest.mark.parametrize("kind", ["ctr", "sequence"])
def test_stopping_between_checkpoints_loses_nothing(kind, tmp_path):
    model, arguments = runs.build(kind)
    loss, calls = arguments["loss"], []

    def failing(*given):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return loss(*given)

    with pytest.raises(KeyboardInterrupt):
        train(model, scratch=tmp_path, **(arguments | {"loss": failing}))
    resumed, weights = runs.run(kind, tmp_path)
    whole, expected = runs.run(kind, None)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert without_seconds(resumed.history) == without_seconds(whole.history)


def test_a_finished_run_is_not_trained_again(tmp_path):
    _, weights = runs.run("ctr", tmp_path)
    model, arguments = runs.build("ctr")
    result = train(model, scratch=tmp_path, **(arguments | {"loss": None}))  # never called
    assert result.steps == 33
    assert torch.equal(model.head.weight, weights["head.weight"])


def test_a_checkpoint_of_another_plan_is_refused_by_name(tmp_path):
    runs.run("ctr", tmp_path)
    with pytest.raises(ValueError, match=r"differs in \['learning_rate'\]"):
        runs.run("ctr", tmp_path, learning_rate=0.5)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    written = []
    write_json = checkpoint.write_json

    def failing(path, value):
        written.append(value["step"])
        if len(written) == 3:  # the tensors of this checkpoint are on disk, its JSON is not
            raise KeyboardInterrupt
        write_json(path, value)

    monkeypatch.setattr(checkpoint, "write_json", failing)
    with pytest.raises(KeyboardInterrupt):
        runs.run("ctr", tmp_path)
    monkeypatch.setattr(checkpoint, "write_json", write_json)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == written[1]
    _, weights = runs.run("ctr", tmp_path)
    _, expected = runs.run("ctr", None)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_old_checkpoint_files_are_removed(tmp_path):
    runs.run("ctr", tmp_path)
    assert len(list(tmp_path.glob("state-*"))) == 1
    assert len(list(tmp_path.glob("best-*"))) == 1


def test_checkpoints_hold_no_frozen_weights_and_no_pickle(tmp_path):
    model, arguments = runs.build("ctr")
    model.head.weight.requires_grad_(False)
    train(model, scratch=tmp_path, **arguments)
    names = checkpoint.read_tensors(next(tmp_path.glob("state-*")))
    assert "model.head.bias" in names
    assert "model.head.weight" not in names
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_random_states_return_exactly():
    device = torch.device("cpu")
    state = checkpoint.random_state(device)
    drawn = torch.rand(3)
    checkpoint.set_random_state(state, device)
    assert torch.equal(torch.rand(3), drawn)
