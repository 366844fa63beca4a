"""Commands from a process that forks are those of the command line: words, code, signals."""

import os
import signal
import subprocess
import sys

import pytest

from tools.faults.forks import SPENT
from tools.faults.workspace import Workspace, alive


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    space = Workspace(tmp_path_factory.mktemp("Große Welt"))
    space.copy_tree()
    yield space
    assert space.forks.close() == 0


def by_hand(space, *words):
    environment = space.environment()
    ran = subprocess.run([sys.executable, "run_all.py", *words], cwd=space.root, env=environment,
                         capture_output=True, text=True, check=False)  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("words", [
    ("smoke", "--explain"), ("smoke", "--only", "nothing"), ("nowhere",), ("fetch", "smoke"),
    ("--help",), ("smoke", "--colour"), ("status",),
], ids=" ".join)  # fmt: skip
def test_a_command_ends_and_speaks_as_by_hand(space, words):
    answer = space.run(*words)
    assert (answer.code, answer.said) == by_hand(space, *words)


def test_a_killed_command_has_no_word_of_the_one_before_and_the_next_one_runs(space):
    assert space.run("smoke", "--explain").said
    killed = space.run("smoke", "--explain", during=lambda p: os.kill(p.pid, signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    assert "RUN" not in killed.said
    before = SPENT[0]
    assert space.run("smoke", "--explain").code == 0
    assert SPENT[0] > before


def test_a_command_that_takes_too_long_is_ended(space):
    seen = []
    answer = space.run("smoke", "--explain", limit=0.0, during=seen.append)
    assert answer.code == 124
    assert "no end within 0 s" in answer.said
    assert not alive(seen[0].pid)
