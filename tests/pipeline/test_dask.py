"""The same graph on a real Dask cluster of two worker processes, one of which is killed mid-run."""

import json
import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SLOW = 'time.sleep(1.5)\nrun.save("out.json", [run.node, *[run.input(n).read_text() for n in ("x",) if run.has_input(n)]])'
NODES = """  a: {notebook: 00_pass_on, resources: {memory_gb: 1}}
  b: {notebook: 00_pass_on, inputs: {x: a/out.json}, resources: {memory_gb: 1, gpu: 1}}
  c: {notebook: 00_pass_on, inputs: {x: a/out.json}, resources: {memory_gb: 2}}
  d: {notebook: 00_pass_on, inputs: {x: c/out.json}}
"""


@pytest.fixture
def graph(world, monkeypatch):
    monkeypatch.setenv("LINGREC_DEVICE", "cpu")
    mark = 'with open(run.scratch.parent.parent / "places", "a") as file:\n    import os\n    file.write(f"{run.node} {os.environ[\'DASK_PLACE\']} ")'
    world.notebook("00_pass_on", mark, SLOW, "run.finish()")
    world.profile(NODES)
    return world


@pytest.fixture
def cluster(tmp_path, wait_for):
    """A scheduler and two workers; only the second one has a GPU to offer."""
    place = tmp_path / "scheduler.json"
    started = []

    def start(*words, **variables):
        command = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(place)]
        started.append(subprocess.Popen(command, cwd=tmp_path, env=os.environ | variables,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))  # fmt: skip
        return started[-1]

    start("scheduler", "--port", "0", "--dashboard-address", ":0")
    assert wait_for(place.exists)
    address = json.loads(place.read_text())["address"]
    quiet = ["--nthreads", "2", "--no-nanny", "--no-dashboard"]
    workers = {
        "plain": start("worker", *quiet, "--resources", "memory_gb=4", DASK_PLACE="plain"),
        "gpu": start("worker", *quiet, "--resources", "memory_gb=4 gpu=1", DASK_PLACE="gpu"),
    }
    yield address, workers
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()


def places(world):
    path = world.store.root / "places"
    words = path.read_text().split() if path.exists() else []
    return list(zip(words[::2], words[1::2], strict=True))


def test_a_killed_dask_worker_changes_nothing_in_the_result(graph, cluster, wait_for, tmp_path):
    local = graph.run("demo", "--workers", "2", DASK_PLACE="local")
    assert local.returncode == 0, local.stdout
    expected = {node: (graph.current(node).key, graph.value(node)) for node in "abcd"}
    graph.home.store.rename(tmp_path / "local")

    address, workers = cluster
    runner = graph.start("demo", f"--executor=dask={address}")
    assert wait_for(lambda: any(place == "plain" for _, place in places(graph)) or
                    any(node == "c" for node, _ in places(graph)), 60)  # fmt: skip
    node, _ = next(((n, p) for n, p in places(graph) if p == "plain"), (None, None))
    workers["plain"].kill()
    said, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, said
    assert {node: (graph.current(node).key, graph.value(node)) for node in "abcd"} == expected
    assert {place for name, place in places(graph) if name == "b"} == {"gpu"}  # resources travelled
    assert not list(graph.store.root.glob("*/lease.json"))


def test_an_address_where_nobody_answers_is_wrong_use(graph):
    answer = graph.run("demo", "--executor", "dask=tcp://127.0.0.1:1")
    assert answer.returncode == 2
    assert "no scheduler answers" in answer.stderr
    assert graph.run("demo", "--executor", "slurm").returncode == 2
