"""Leases, results and housekeeping, without kernels."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lib.pipeline import Blocked
from lib.pipeline.lease import STALE_SECONDS, Lease, holder_is_alive, process_stamp, read_lease


@pytest.fixture
def dead():
    """The stamp of a process that lived and is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        stamp = process_stamp(process.pid)
        assert holder_is_alive(stamp)
    return stamp


def write_lease(folder, holder, age=0.0, **more):
    folder.mkdir(exist_ok=True)
    path = folder / "lease.json"
    path.write_text(json.dumps({"holder": holder, **more}))
    os.utime(path, (time.time() - age,) * 2)


def test_one_of_two_gets_the_lease_and_the_other_after_release(tmp_path):
    first, second = Lease(tmp_path), Lease(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()


def test_the_lease_of_a_dead_process_is_taken_over_and_its_kernel_ended(tmp_path, dead):
    kernel = subprocess.Popen(["sleep", "60"], start_new_session=True)
    write_lease(tmp_path, dead, kernel=process_stamp(kernel.pid))
    assert read_lease(tmp_path) is None
    assert Lease(tmp_path).acquire()
    assert kernel.wait(5) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


def test_a_process_with_the_same_number_but_another_start_is_another_process():
    machine, pid, _ = process_stamp().split("_")
    assert holder_is_alive(process_stamp())
    assert not holder_is_alive(f"{machine}_{pid}_1")


@pytest.mark.parametrize(("age", "living"), [(1.0, True), (STALE_SECONDS + 1, False)])
def test_a_lease_of_another_machine_lives_by_its_heartbeat(tmp_path, age, living):
    write_lease(tmp_path, "elsewhere-1_5_7", age)
    assert (read_lease(tmp_path) is not None) == living
    assert Lease(tmp_path).acquire() == (not living)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"holder": 3}'])
def test_a_torn_lease_blocks_only_while_it_is_fresh(tmp_path, content):
    (tmp_path / "lease.json").write_text(content)
    assert not Lease(tmp_path).acquire()
    os.utime(tmp_path / "lease.json", (1, 1))
    assert Lease(tmp_path).acquire()


def test_only_one_of_many_takes_over_a_dead_lease(tmp_path, dead):
    code = (
        "import sys, time; from pathlib import Path; from lib.pipeline.lease import Lease\n"
        "lease = Lease(Path(sys.argv[1])); sys.stdin.readline(); print(lease.acquire(), flush=True)\n"
        "sys.stdin.readline()"
    )
    write_lease(tmp_path, dead)
    racers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)]  # fmt: skip
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    answers = [racer.stdout.readline().strip() for racer in racers]
    for racer in racers:
        racer.communicate("\n")
    assert sorted(answers) == ["False"] * 7 + ["True"]


def test_a_lost_lease_is_not_released_for_its_new_holder(tmp_path):
    lease = Lease(tmp_path)
    lease.acquire()
    write_lease(tmp_path, "elsewhere-1_5_7")
    assert not lease.held()
    lease.release()
    assert (tmp_path / "lease.json").exists()


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


def test_sweeping_removes_what_the_dead_left_and_nothing_else(pair, dead):
    pair.complete("numbers")
    folder = pair.store.folder("numbers")
    for name in (f".tmp-{dead}.abc", f".tmp-{process_stamp()}.abc", "scratch-0123"):
        (folder / name).mkdir()
    pair.store.sweep("numbers")
    assert {path.name for path in folder.iterdir()} == {
        f".tmp-{process_stamp()}.abc", "scratch-0123", "current", pair.current("numbers").key
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
