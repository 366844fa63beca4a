"""Random SIGKILLs of runner, worker and kernel over a small graph of real notebooks.

Whatever dies when: nothing looks finished that is not, the outputs end byte-identical to an
undisturbed run, and a finished node is not run again. LINGREC_KILLS sets how many (25; the full
test is 100).
"""

import logging
import os
import random
import shutil
import signal
import time

import pytest

from lib.pipeline.keys import Hashes
from lib.pipeline.lease import read_lease

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("LINGREC_KILLS", "25"))
NODES = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": []}
STARTED = 'with open(run.scratch.parent.parent / "starts", "a") as file:\n    file.write(run.node)'
SAVED = """parts = [run.input(name).read_text() for name in ("x", "y") if run.has_input(name)]
time.sleep(0.05)
run.save("out.json", [run.node, *parts])
time.sleep(0.05)
run.save("more/list.json", list(range(2000)))"""


@pytest.fixture
def graph(world):
    world.notebook("00_pass_on", STARTED, SAVED, "time.sleep(0.05)\nrun.finish()")
    lines = []
    for name, needs in NODES.items():
        inputs = ", ".join(
            f"{slot}: {need}/out.json" for slot, need in zip("xy", needs, strict=False)
        )
        lines.append(f"  {name}: {{notebook: 00_pass_on, inputs: {{{inputs}}}}}\n")
    world.profile("".join(lines))
    return world


def outputs(world, node):
    folder = world.current(node).folder / "outputs"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def finished(world, reference):
    """The nodes that look finished; each must really be."""
    done = set()
    for node in NODES:
        for result in world.store.results(node):
            assert world.store.damage(result, Hashes(world.home.store, trust=False)) == []
        if (world.store.folder(node) / "current").exists():
            assert outputs(world, node) == reference[node]
            done.add(node)
        for folder in world.store.folder(node).glob("[0-9a-f]" * 12):
            assert (folder / "manifest.json").exists(), "a folder looks like a result without one"
    return done


def living(world, runner):
    """The processes of a run by kind, as the leases name them."""
    pids = {"runner": [runner.pid], "worker": [], "kernel": []}
    for lease in world.store.root.glob("*/lease.json"):
        content = read_lease(lease.parent) or {}
        for kind in content.keys() & pids.keys():
            pids[kind].append(int(content[kind][0]))
    return pids


def victim(world, runner, dice):
    """A random process; a kernel lives so shortly that it has to be waited for."""
    kind, deadline = dice.choice(["runner", "worker", "kernel"]), time.monotonic() + 30
    while runner.poll() is None and time.monotonic() < deadline:
        pids = living(world, runner)[kind]
        if pids:
            time.sleep(dice.uniform(0.0, 0.3) if kind == "kernel" else 0.0)
            return kind, dice.choice(pids)
        time.sleep(0.01)
    return "runner", runner.pid


@pytest.mark.timeout(900)
def test_random_kills_never_leave_a_lie(graph):
    assert graph.run().returncode == 0
    reference = {node: outputs(graph, node) for node in NODES}
    shutil.rmtree(graph.home.store)
    dice, kills, rounds, kinds = random.Random(20261120), 0, 0, {}
    done, starts, runner = set(), "", None
    while kills < KILLS:
        runner = graph.start("demo", "--workers", "2")
        time.sleep(dice.uniform(0.2, 3.0))
        while runner.poll() is None and kills < KILLS:
            kind, pid = victim(graph, runner, dice)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                break
            kills, kinds[kind] = kills + 1, kinds.get(kind, 0) + 1
            time.sleep(dice.uniform(0.0, 0.6))
            if kind == "runner" or dice.random() < 0.5:
                break
        if runner.poll() is None and dice.random() < 0.5:
            runner.kill()
        runner.communicate()
        log = graph.store.root / "starts"
        now = log.read_text() if log.exists() else ""
        assert not set(now[len(starts) :]) & done, "a finished node ran again"
        done, starts = finished(graph, reference), now
        if done == set(NODES):
            shutil.rmtree(graph.home.store, ignore_errors=True)
            done, starts, rounds = set(), "", rounds + 1
    last = graph.run()
    assert last.returncode == 0, last.stdout
    assert finished(graph, reference) == set(NODES)
    assert "5 done" in graph.run().stdout
    left = [path.name for node in NODES for path in graph.store.folder(node).glob("*")
            if path.name not in {"current", "log.txt"} and not path.is_dir()]  # fmt: skip
    assert left == []
    assert set(kinds) == {"runner", "worker", "kernel"}
    logging.getLogger(__name__).warning("%d kills %s, %d whole rounds", kills, kinds, rounds)
