"""Leases, results and housekeeping, without kernels."""

import json
import os
import signal
import subprocess
import sys

import pytest

from lib.pipeline import Blocked
from lib.pipeline.lease import Lease, process_stamp, read_lease

HOLD = (
    "import sys; from pathlib import Path; from lib.pipeline.lease import Lease\n"
    "lease = Lease(Path(sys.argv[1])); sys.stdin.readline()\n"
    "print(lease.acquire(inputs=['a/1']), flush=True); sys.stdin.readline()"
)


def holder(folder):
    """A process that takes the lease when it reads a line, and holds it until the next."""
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip


def take(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip() == "True"


def test_one_of_two_gets_the_lease_and_the_other_after_release(tmp_path):
    first, second = Lease(tmp_path), Lease(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert not (tmp_path / "lease.json").exists()
    assert second.acquire()
    second.release()


def test_a_living_holder_of_another_process_is_seen_until_it_is_killed(tmp_path):
    with holder(tmp_path) as process:
        assert take(process)
        os.kill(process.pid, signal.SIGSTOP)  # a suspended worker keeps its lease
        assert read_lease(tmp_path)["inputs"] == ["a/1"]
        assert not Lease(tmp_path).acquire()
        process.kill()
    assert read_lease(tmp_path) is None
    lease = Lease(tmp_path)
    assert lease.acquire()
    lease.release()


def test_the_lease_of_a_dead_process_is_taken_over_and_its_kernel_ended(tmp_path):
    kernel = subprocess.Popen(["sleep", "60"], start_new_session=True)
    sockets = tmp_path / "nb_left"
    sockets.mkdir()
    left = {"kernel": process_stamp(kernel.pid), "sockets": str(sockets)}
    (tmp_path / "lease.json").write_text(json.dumps(left))
    assert read_lease(tmp_path) is None
    lease = Lease(tmp_path)
    assert lease.acquire()
    assert kernel.wait(5) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]
    lease.release()


def test_a_process_with_the_same_number_but_another_start_is_left_alone(tmp_path):
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        pid, start = process_stamp(other.pid)
        (tmp_path / "lease.json").write_text(json.dumps({"kernel": [pid, start - 60]}))
        lease = Lease(tmp_path)
        assert lease.acquire()
        lease.release()
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kernel": 3}', '{"kernel": ["x"]}', "\x00"])
def test_a_torn_lease_blocks_nobody(tmp_path, content):
    (tmp_path / "lease.json").write_text(content)
    lease = Lease(tmp_path)
    assert lease.acquire()
    assert json.loads((tmp_path / "lease.json").read_text())["worker"][0] == os.getpid()
    lease.release()


@pytest.mark.slow
def test_only_one_of_many_takes_over_a_dead_lease(tmp_path):
    (tmp_path / "lease.json").write_text('{"kernel": [1, 2]}')
    racers = [holder(tmp_path) for _ in range(8)]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    answers = [racer.stdout.readline().strip() for racer in racers]
    for racer in racers:
        racer.communicate("\n")
    assert sorted(answers) == ["False"] * 7 + ["True"]


def test_a_folder_that_cannot_be_made_is_blocked_with_advice(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Blocked, match=r"cannot be written.*run_all\.py doctor"):
        Lease(tmp_path / "file" / "node").acquire()


def test_a_result_set_aside_by_a_crash_while_it_was_replaced_comes_back(pair):
    pair.complete("numbers")
    good = pair.current("numbers")
    good.folder.rename(good.folder.with_name(f".old-{good.key}"))
    assert pair.store.current("numbers") is None
    pair.store.sweep("numbers")
    assert pair.store.current("numbers") == good


def test_sweeping_removes_what_the_dead_left_and_nothing_else(pair):
    pair.complete("numbers")
    folder = pair.store.folder("numbers")
    for name in (".tmp-abc", "scratch-0123"):
        (folder / name).mkdir()
    (folder / ".partial-abc-current").write_text("")
    pair.store.sweep("numbers")
    assert {path.name for path in folder.iterdir()} == {
        "scratch-0123", "current", pair.current("numbers").key
    }  # fmt: skip


def steps(pair, *values):
    made = []
    for value in values:
        pair.profile(f"  numbers: {{notebook: 00_make_numbers, params: {{steps: {value}}}}}\n")
        made.append(pair.complete("numbers", f"[{value}]").key[:12])
    return made


def kept(pair):
    return {result.key for result in pair.store.results("numbers")}


def test_gc_keeps_the_newest_and_the_current(pair):
    made = steps(pair, 1, 2, 3, 4)
    pair.store.point("numbers", made[0])
    answer = pair.run("gc", "--keep", "1")
    assert answer.returncode == 0, answer.stderr
    assert kept(pair) == {made[0], made[3]}
    assert pair.run("gc", "--keep", "0").returncode == 2


def test_gc_leaves_a_running_node_and_what_it_reads_alone(pair):
    made = steps(pair, 1, 2, 3)
    reader = Lease(pair.store.folder("product"))
    assert reader.acquire(inputs=[f"numbers/{made[0]}"])
    pair.run("gc", "--keep", "1")
    assert kept(pair) == {made[0], made[2]}
    writer = Lease(pair.store.folder("numbers"))
    assert writer.acquire()
    pair.run("gc", "--keep", "1")
    assert kept(pair) == {made[0], made[2]}
    reader.release()
    writer.release()


def test_gc_forgets_hashes_of_files_that_are_gone(pair):
    steps(pair, 1, 2)
    path = pair.home.store / "hashes.jsonl"
    path.write_text('["store/gone", 1, 2, 3, 4, "sha"]\n')
    pair.run("gc")
    assert "gone" not in (path.read_text() if path.exists() else "")


def test_doctor_says_what_to_do_for_each_failure(pair):
    (pair.root / "requirements.lock").write_text("numpy==0.1\nno-such-package==1\n")
    pair.profile("  numbers: {notebook: 00_make_number}\n")
    answer = pair.run("doctor")
    assert answer.returncode == 3
    assert "ok    python: 3.11" in answer.stdout
    assert "FAIL  packages: run `make environment`: 2 differ: numpy is " in answer.stdout
    assert "FAIL  profile: correct 1 node(s): 00_make_number.ipynb: no such notebook. Did you mean " \
        "'00_make_numbers'?" in answer.stdout  # fmt: skip


def test_diff_of_runs_that_are_not_there_names_what_is(pair):
    answer = pair.run("diff", "a", "b")
    assert answer.returncode == 2
    assert "0 runs of demo match 'a'" in answer.stderr


def test_a_torn_line_of_the_run_history_is_ignored(pair):
    pair.store.root.mkdir(parents=True)
    (pair.store.root / "runs.jsonl").write_text('{"id": "1", "nodes": {}}\n{"id": "2", "no')
    assert [run["id"] for run in pair.store.runs()] == ["1"]
