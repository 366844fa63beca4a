"""Notebooks that go wrong, each in its own way, in one run with ``--keep-going``."""

import json
import re

import pytest

from lib.pipeline.failure import MEMORY, explain

pytestmark = pytest.mark.slow

FAULTY = {
    "exits": ["import sys\nsys.exit(0)", "run.finish()"],
    "forgets": ['run.path("x.bin")', "run.finish()"],
    "deletes": ['run.save("x.json", 1)', "run.finish()", 'run.path("x.json").unlink()'],
    "nan": ['run.metric("auc", float("nan"))', "run.finish()"],
    "forges": ['import os, pathlib\nwork = pathlib.Path(os.environ["LINGREC_CONTEXT"]).parent',
               '(work / "finish.json").write_text(json.dumps({"nonce": "guess", "outputs": [], "metrics": []}))'],
    "dies": ["import os, signal\nblock = bytearray(80_000_000)\ntime.sleep(0.6)\nos.kill(os.getpid(), signal.SIGKILL)",
             "run.finish()"],
    "hangs": ['print("still here")\ntime.sleep(600)', "run.finish()"],
    "raises": ['from lib.data.files import open_manifest\n\nopen_manifest(run.scratch / "none", "clicks")', "run.finish()"],
    "mute": ['get_ipython()._showtraceback = lambda *_: None\nraise MemoryError("no room")', "run.finish()"],
    "deaf": ["get_ipython().kernel._publish_status = lambda *_, **__: None", "run.finish()"],
    "leaves": ["pass"],
    "twice": ['run.metric("a", 1)\nrun.metric("a", 2)', "run.finish()"],
    "interrupts": ["raise KeyboardInterrupt", "run.finish()"],
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    from tests.pipeline.conftest import World  # the folder is not a package for pytest

    return World(tmp_path_factory.mktemp("faults") / "Große Welt")


@pytest.fixture(scope="module")
def outcome(broken):
    nodes = ""
    for name, cells in FAULTY.items():
        broken.notebook(f"10_{name}", *cells)
        limit = ", resources: {minutes: 0.3}" if name == "hangs" else ""
        nodes += f"  {name}: {{notebook: 10_{name}{limit}}}\n"
    broken.notebook("20_follow_up", "run.finish()")
    nodes += "  after: {notebook: 20_follow_up, inputs: {x: raises}}\n"
    broken.notebook("30_work_well", 'run.save("out.json", 1)', "run.finish()")
    nodes += "  fine: {notebook: 30_work_well}\n"
    broken.profile(nodes)
    return broken.run("demo", "--keep-going", "--workers", "3")


@pytest.mark.parametrize(("name", "message"), [
    ("exits", "ended without `run.finish()`; cell 5"),
    ("forgets", "declared but not written: outputs/x.bin"),
    ("deletes", "declared but not written: outputs/x.json"),
    ("nan", "metric 'auc' (row ''): nan; expected finite numbers"),
    ("forges", "finish.json is not from this run"),
    ("dies", "the kernel died (signal SIGKILL) with a peak memory of"),
    ("hangs", "over its limit of 0.3 minutes"),
    ("raises", "is not there: expected a finished dataset of kind 'clicks'"),
    ("leaves", "ended without `run.finish()`"),
    ("twice", "is recorded twice"),
    ("interrupts", "KeyboardInterrupt"),
    ("deaf", "did not arrive within 20 s, as when its kernel gets no more memory; peak memory of"),
])  # fmt: skip
def test_each_fault_is_a_failure_with_a_clear_message(broken, outcome, name, message):
    assert broken.store.current(name) is None
    error = broken.store.failure(name)
    assert message in error["message"]
    assert error["notebook"] == f"10_{name}"
    assert error["reproduce"] == f"python run_all.py demo --only {name}"


def test_the_run_ends_with_one_and_what_does_not_depend_on_a_failure_is_done(broken, outcome):
    assert outcome.returncode == 1, outcome.stderr
    assert broken.current("fine").output("out.json").exists()
    assert "○ after: blocked" in outcome.stdout
    assert broken.store.current("after") is None


def test_the_console_names_notebook_cell_place_and_command(outcome):
    said = outcome.stdout
    assert "10_raises.ipynb, cell 4 'Why?', lib/data/files.py:" in said
    assert "again: python run_all.py demo --only raises" in said
    assert "log: data/store/demo/raises/log.txt" in said


def test_a_dead_kernel_tells_its_peak_memory(broken, outcome):
    assert broken.store.failure("dies")["peak_memory_bytes"] > 80_000_000
    assert "as the system ends it when memory runs out" in broken.store.failure("dies")["message"]


def test_an_error_that_the_kernel_could_not_show_is_told_by_its_name(broken, outcome):
    told = broken.store.failure("mute")["message"]
    assert re.fullmatch(r"MemoryError: no room - out of memory, with a peak memory of \d+ MB", told)


@pytest.mark.parametrize("said", [
    "ImportError: _backend_agg.so: failed to map segment from shared object",
    "ArrowMemoryError: malloc of size 10048 failed",
    "PanicException: OS can't spawn worker thread: Resource temporarily unavailable (os error 11)",
    "RuntimeError: can't start new thread",
    "RuntimeError: DefaultCPUAllocator: can't allocate: Error code 12 (Cannot allocate memory)",
    "ValueError: array needs 9 MB", "KeyError: 'thread'",
])  # fmt: skip
def test_what_libraries_say_when_memory_runs_out_is_known(said):
    assert bool(MEMORY.search(said)) is not said.startswith(("ValueError", "KeyError"))


class Ended:
    """An execution that ended in an error, with the traceback that the kernel sent."""

    cell, titles, title, error, peak_bytes = 0, ["Why?"], "", None, 9_000_000

    def __init__(self, *lines):
        output = {"output_type": "error", "traceback": list(lines)}
        self.nb = {"cells": [{"outputs": [output]}]}


@pytest.mark.parametrize(("said", "how"), [
    ("MemoryError", "out of memory"), ("ValueError: no", ""),
    ("SystemError: error return without exception set", "perhaps out of memory"),
    ("PanicException: Os { code: 11, kind: WouldBlock, message: x }", "perhaps out of memory"),
])  # fmt: skip
def test_the_peak_memory_is_told_where_memory_may_have_run_out(said, how, tmp_path):
    told = explain(RuntimeError(said), Ended(), tmp_path, tmp_path / "log.txt", "")
    assert told["message"] == (f"{said} - {how}, with a peak memory of 9 MB" if how else said)


def test_the_place_is_in_the_project_and_not_in_a_library(tmp_path):
    run = Ended(f"File {tmp_path}/lib/data/files.py:7, in read",
                "File /env/lib/python3.11/site-packages/matplotlib/backends/agg.py:40",
                "File /env/lib/python3.11/site-packages/numpy/lib/npyio.py:3")  # fmt: skip
    told = explain(RuntimeError("no"), run, tmp_path, tmp_path / "log.txt", "")
    assert told["place"] == "lib/data/files.py:7"


def test_files_hold_no_terminal_codes_and_no_absolute_paths(broken, outcome):
    for path in (broken.root / "data" / "store").rglob("*"):
        if path.is_file():
            text = path.read_text("utf-8")
            assert "\x1b" not in text, path
            assert str(broken.root) not in text, path


def test_what_a_cell_printed_before_it_was_ended_is_in_the_log(broken, outcome):
    assert "still here" in (broken.store.folder("hangs") / "log.txt").read_text()


def test_no_temporary_folder_lease_or_status_is_left(broken, outcome):
    for node in FAULTY:
        left = {path.name for path in broken.store.folder(node).iterdir()}
        assert {name for name in left if not name.startswith("scratch-")} == {"failed", "log.txt"}


def test_the_failed_copy_of_the_notebook_shows_the_error(broken, outcome):
    failed = json.loads((broken.store.folder("raises") / "failed/executed.ipynb").read_text())
    errors = [output["ename"] for cell in failed["cells"] for output in cell.get("outputs", [])
              if output["output_type"] == "error"]  # fmt: skip
    assert errors == ["FileNotFoundError"]


def test_status_tells_failed_nodes(broken, outcome):
    rows = json.loads(broken.run("status", "--json").stdout)["nodes"]
    states = {row["node"]: row["state"] for row in rows}
    assert states["raises"] == "failed"
    assert states["after"] == "run"  # it waits for one that will be tried again
    assert states["fine"] == "done"


def test_a_corrected_notebook_clears_the_failure(broken, outcome):
    broken.notebook("10_leaves", "run.finish()")
    answer = broken.run("demo", "--only", "leaves")
    assert answer.returncode == 0, answer.stderr
    assert broken.store.failure("leaves") is None
