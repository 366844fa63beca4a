"""The same graph on a real Dask cluster of two worker processes, one of which is killed mid-run."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from lib.pipeline.profile import CODE_ROOT

pytestmark = pytest.mark.slow

MARK = """import os

def mark(what):
    with open(run.scratch.parent.parent / "marks", "a") as file:
        file.write(f"{run.node} {what} {os.environ['DASK_PLACE']} {time.time()}\\n")

mark("start")"""
SAVE = 'time.sleep(1.2)\nparts = [run.input("x").read_text()] if run.has_input("x") else []\nrun.save("out.json", [run.node, *parts])\nmark("end")'  # fmt: skip
NODES = """  a: {notebook: 00_pass_on, resources: {memory_gb: 1}}
  b: {notebook: 00_pass_on, inputs: {x: a/out.json}, resources: {gpu: 1}}
  c: {notebook: 00_pass_on, inputs: {x: a/out.json}, resources: {gpu: 1}}
"""


@pytest.fixture
def graph(world, monkeypatch):
    monkeypatch.setenv("LINGREC_DEVICE", "cpu")
    world.notebook("00_pass_on", MARK, SAVE, "run.finish()")
    world.profile(NODES)
    return world


@pytest.fixture
def scheduler(tmp_path, wait_for):
    """The address of a scheduler, and how to start a worker that offers one GPU token."""
    place = tmp_path / "scheduler.json"
    started = []

    def start(*words, **variables):
        command = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(place)]
        environment = os.environ | {"PYTHONPATH": str(CODE_ROOT)} | variables
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **quiet))
        return started[-1]

    start("scheduler", "--port", "0", "--dashboard-address", ":0")
    assert wait_for(place.exists)
    words = ("worker", "--nthreads", "2", "--no-nanny", "--no-dashboard",
             "--resources", "memory_gb=4 gpu=1")  # fmt: skip
    address = json.loads(place.read_text())["address"]
    yield address, lambda name, **more: start(*words, DASK_PLACE=name, **more)
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()


def marks(world):
    path = world.store.root / "marks"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_killed_dask_worker_changes_nothing_in_the_result(graph, scheduler, wait_for, tmp_path):
    local = graph.run("demo", "--workers", "2", DASK_PLACE="local")
    assert local.returncode == 0, local.stdout
    expected = {node: (graph.current(node).key, graph.value(node)) for node in "abc"}
    graph.home.store.rename(tmp_path / "local")

    address, start = scheduler
    workers = {name: start(name) for name in ("first", "second")}
    runner = graph.start("demo", f"--executor=dask={address}")
    assert wait_for(lambda: marks(graph), 60)
    victim = marks(graph)[0][2]
    workers[victim].kill()  # while it runs node a
    said, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, said
    assert {node: (graph.current(node).key, graph.value(node)) for node in "abc"} == expected
    assert not list(graph.store.root.glob("*/lease.json"))

    places = {(node, place) for node, what, place, _ in marks(graph) if what == "end"}
    survivor = ({"first", "second"} - {victim}).pop()
    assert places == {("a", survivor), ("b", survivor), ("c", survivor)}
    # one GPU is left, so the two nodes that ask for one ran one after the other
    spans = sorted((float(time), node) for node, _, _, time in marks(graph) if node in "bc")
    assert [node for _, node in spans] in (["b", "b", "c", "c"], ["c", "c", "b", "b"])


def test_an_address_where_nobody_answers_is_wrong_use(graph):
    answer = graph.run("demo", "--executor", "dask=tcp://127.0.0.1:1")
    assert answer.returncode == 2
    assert "no scheduler answers" in answer.stderr
    assert graph.run("demo", "--executor", "slurm").returncode == 2


def test_a_worker_with_other_code_is_a_failure_that_names_what_differs(graph, scheduler, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(CODE_ROOT / "lib", other / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CODE_ROOT / "requirements.lock", other)
    changed = other / "lib" / "data" / "files.py"
    code = changed.read_bytes()
    changed.write_bytes(code.replace(b"Files that are", b"Files that Are", 1))  # one byte
    assert changed.read_bytes() != code

    address, start = scheduler
    start("other", PYTHONPATH=str(other))
    answer = graph.run("demo", f"--executor=dask={address}")
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "the worker has other code or packages than the runner" in answer.stdout
    assert "lib/data/files.py changed" in answer.stdout
    assert "lib/run.py" not in answer.stdout
    assert "○ b: blocked" in answer.stdout
    assert marks(graph)[0][2] == "other"  # it did run, and its result is not believed
    assert graph.run("demo", "--explain").stdout.startswith("a  RUN      lib/data/files.py changed")
