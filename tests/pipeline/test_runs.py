"""Real notebooks in real kernels: what a run leaves, what it does not do twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib.pipeline.lease import read_lease

pytestmark = pytest.mark.slow

STEPS_4 = ("  numbers: {notebook: 00_make_numbers, params: {steps: 4}}\n"
           "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers/out.json}}\n")  # fmt: skip


def test_a_run_leaves_results_records_and_history_and_does_nothing_twice(pair):
    first = pair.run()
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 ran" in first.stdout
    assert pair.value("product") == 6
    record = pair.current("product").record
    assert record["metrics"] == [{"name": "value", "value": 6.0, "low": None, "high": None, "n": None,
                                  "row": "", "segment": "all", "seed": None, "unit": "",
                                  "better": None}]  # fmt: skip
    assert record["inputs"]["x"]["node"] == "numbers"
    assert record["inputs"]["x"]["path"].startswith("data/store/demo/numbers/")
    assert record["parameters"] == {"factor": 2}
    assert record["defaults"] == ["factor"]
    assert record["title"] == "Why?"
    assert [cell["index"] for cell in record["cells"]] == [1, 2, 3, 4, 5, 6]
    assert record["peak_memory_bytes"] > 10_000_000
    assert record["seconds"] < 60
    executed = pair.current("product").folder / "executed.ipynb"
    assert str(pair.root) not in executed.read_text("utf-8")
    assert "\\u" not in executed.read_text("utf-8")
    second = pair.run()
    assert "2 done" in second.stdout
    assert len(pair.store.runs()) == 1

    # a parameter changes, and changes back
    before = (pair.root / "params/demo.yaml").read_text()
    pair.profile(STEPS_4)
    changed = pair.run()
    assert "param.steps 3 → 4" in changed.stdout
    assert pair.value("product") == 8
    (pair.root / "params/demo.yaml").write_text(before)
    reverted = pair.run()
    assert "2 restored" in reverted.stdout
    assert pair.value("product") == 6
    said = pair.run("diff", "previous", "last").stdout
    assert "param.steps 4 → 3" in said
    assert "metric value: 8 → 6" in said

    # garbage in an output is found, set aside and made again, before the next node reads it
    pair.current("numbers").output("out.json").write_text("[\n 9,\n 1\n]\n")
    repaired = pair.run()
    assert repaired.returncode == 0
    assert "changed after it was written" in repaired.stdout
    assert pair.value("numbers") == [3, 1]
    assert len(list(pair.store.folder("numbers").glob("corrupt-*"))) == 1

    # a remembered hash may lie; --verify does not ask it
    output = pair.current("numbers").output("out.json")
    output.write_text("[\n 8,\n 1\n]\n")
    status, good = output.stat(), pair.current("numbers").manifest["files"]["outputs/out.json"]
    lie = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, good["sha256"]]
    name = str(output.relative_to(pair.root / "data"))
    with (pair.home.store / "hashes.jsonl").open("a") as file:
        file.write(json.dumps([name, *lie]) + "\n")
    assert "2 done" in pair.run().stdout
    assert "numbers  CORRUPT" in pair.run("demo", "--verify", "--explain").stdout
    assert "1 ran" in pair.run("demo", "--verify", "--only", "numbers").stdout
    assert pair.value("numbers") == [3, 1]

    # a changed cell shows as a diff of sources
    notebook = pair.root / "notebooks/10_multiply_numbers.ipynb"
    notebook.write_text(
        notebook.read_text("utf-8").replace("data[0] * factor)", "factor * data[0])")
    )
    assert "code changed" in pair.run().stdout
    said = pair.run("diff", "previous", "last").stdout
    assert "code changed" in said
    assert '+  run.save("out.json", factor * data[0])' in said
    assert "outputs" not in said.replace("outputs/", "")
    forced = pair.run("demo", "--only", "product", "--force")
    assert "1 ran" in forced.stdout


def test_parameters_travel_byte_for_byte(world):
    hostile = (
        "<script>alert('x')</script> \"{braces}\" \\n \u202eright\u202c üñ% $HOME `ls` "
        + "x" * 10_000
    )
    world.notebook("00_tell_words", 'run.save("out.json", [words, numbers, more])', "run.finish()",
                   title="<script>alert(1)</script>",
                   parameters='words: str = ""  # any\nnumbers: list[float] = []  # any\nmore: dict = {}  # any')  # fmt: skip
    given = {
        "words": hostile,
        "numbers": [1e-7, -0.0, 1e300],
        "more": {"a'\"\n": [None, True, hostile]},
    }
    world.profile(f"  words: {{notebook: 00_tell_words, params: {json.dumps(given)}}}\n")
    answer = world.run()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert world.value("words") == list(given.values())


def test_a_misspelt_parameter_is_refused_before_anything_starts(pair):
    pair.profile(STEPS_4.replace("steps", "step"))
    answer = pair.run()
    assert answer.returncode == 2
    assert answer.stderr.strip() == ("params/demo.yaml, line 3: node numbers: unknown parameter "
                                     "'step'. Did you mean 'steps'?")  # fmt: skip
    assert not (pair.root / "data" / "store").exists()


def test_only_blocks_without_finished_inputs_and_says_what_makes_them(pair):
    answer = pair.run("demo", "--only", "product")
    assert answer.returncode == 3
    assert "run `run_all.py demo --until numbers`" in answer.stdout


def test_follow_shows_cells_and_run_one_is_the_same_worker(pair):
    answer = pair.run("run-one", "numbers", "--follow")
    assert answer.returncode == 0, answer.stderr
    assert "cell 4" in answer.stderr
    assert pair.value("numbers") == [3, 1]


def test_code_that_changes_while_it_runs_gives_no_result(pair, wait_for):
    pair.notebook(
        "00_make_numbers", "time.sleep(2)", "run.finish()", parameters="steps: int = 3  # 1..: n"
    )
    runner = pair.start("demo", "--only", "numbers")
    assert wait_for((pair.store.folder("numbers") / "status.json").exists)
    pair.notebook(
        "00_make_numbers", "time.sleep(0)", "run.finish()", parameters="steps: int = 3  # 1..: n"
    )
    said, _ = runner.communicate()
    assert runner.returncode == 1
    assert "changed while it ran" in said
    assert pair.store.current("numbers") is None


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ending_the_runner_ends_worker_and_kernel_and_is_no_failure(world, wait_for, end):
    world.notebook("00_wait_long",
                   'import os, pathlib\npathlib.Path(run.scratch / "pid").write_text(str(os.getpid()))',
                   'import subprocess\nchild = subprocess.Popen(["sleep", "600"])\n'
                   '(run.scratch / "child").write_text(str(child.pid))',
                   "time.sleep(600)", "run.finish()")  # fmt: skip
    world.profile("  waits: {notebook: 00_wait_long}\n")
    runner = world.start()
    assert wait_for(lambda: any(world.store.folder("waits").glob("scratch-*/child")))
    pids = [int(next(world.store.folder("waits").glob(f"scratch-*/{name}")).read_text())
            for name in ("pid", "child")]  # fmt: skip
    os.kill(runner.pid, end)
    runner.communicate()
    assert wait_for(lambda: not any(alive(pid) for pid in pids), 8)
    assert wait_for(lambda: not (world.store.folder("waits") / "lease.json").exists(), 8)
    assert world.store.failure("waits") is None
    assert world.store.current("waits") is None


def test_a_frozen_kernel_whose_worker_was_killed_is_ended_by_the_next_one(world, wait_for):
    world.notebook("00_wait_long", "time.sleep(600)", "run.finish()")
    world.profile("  waits: {notebook: 00_wait_long}\n")
    folder, runner = world.store.folder("waits"), world.start()
    assert wait_for(lambda: "kernel" in (read_lease(folder) or {}), 60)
    lease = read_lease(folder)
    kernel, sockets = int(lease["kernel"][0]), Path(lease["sockets"])
    os.kill(kernel, signal.SIGSTOP)  # it cannot notice that its worker is gone
    os.kill(int(lease["worker"][0]), signal.SIGKILL)
    os.killpg(runner.pid, signal.SIGKILL)
    runner.communicate()
    assert wait_for(lambda: read_lease(folder) is None)
    assert sockets.exists()
    runner = world.start()
    assert wait_for(lambda: not alive(kernel) and not sockets.exists(), 60)
    os.kill(runner.pid, signal.SIGTERM)
    runner.communicate()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


COUNTING = (
    'with open(run.scratch.parent.parent / "count", "a") as file:\n    file.write(run.node + " ")'
)


def test_two_runners_at_once_run_each_node_once(pair):
    pair.notebook("00_make_numbers", COUNTING, 'time.sleep(1)\nrun.save("out.json", [3])', "run.finish()",
                  parameters="steps: int = 3  # 1..: n")  # fmt: skip
    runners = [pair.start(), pair.start()]
    said = [runner.communicate()[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], said
    assert (pair.store.root / "count").read_text() == "numbers "
    assert pair.value("product") == 6


def test_scratch_survives_a_kill_and_goes_with_success(world, wait_for):
    world.notebook("00_train_slowly", 'mark = run.scratch / "epoch"\nfound = mark.exists()',
                   'mark.write_text("1")', "time.sleep(0 if found else 600)",
                   'run.save("out.json", found)', "run.finish()")  # fmt: skip
    world.profile("  trains: {notebook: 00_train_slowly}\n")
    runner = world.start()
    assert wait_for(lambda: any(world.store.folder("trains").glob("scratch-*/epoch")))
    os.killpg(runner.pid, signal.SIGKILL)
    runner.communicate()
    assert world.run().returncode == 0
    assert world.value("trains") is True
    assert not list(world.store.folder("trains").glob("scratch-*"))


def test_in_a_notebook_opened_by_hand_the_newest_inputs_are_found_from_any_folder(pair, tmp_path):
    code = "import lib\nfactor: int = 5\nrun = lib.start('10_multiply_numbers', globals())\n" \
        "run.save('out.json', run.input('x').read_text())\nrun.metric('a', 1)\nrun.finish()\n"  # fmt: skip

    def by_hand():
        return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=pair.environment(),
                              capture_output=True, text=True, check=False)  # fmt: skip

    assert "python run_all.py demo --until numbers" in by_hand().stderr
    pair.complete("numbers", "[3, 1]")
    answer = by_hand()
    assert answer.returncode == 0, answer.stderr
    assert (
        pair.root / "data/scratch/10_multiply_numbers/outputs/out.json"
    ).read_text() == '"[3, 1]"\n'


def test_the_kernel_is_reached_over_ipc_offline_with_a_fixed_environment(world):
    world.notebook("00_look_around",
                   "import os\nfrom ipykernel.connect import get_connection_info",
                   "names = ('PYTHONHASHSEED', 'CUBLAS_WORKSPACE_CONFIG', 'OMP_NUM_THREADS', 'HF_HUB_OFFLINE')\n"
                   "found = [os.environ[name] for name in names]\n"
                   "transport = json.loads(get_connection_info())['transport']\n"
                   "run.save('out.json', [*found, transport, os.getpgid(0) == os.getpid()])",
                   "run.finish()")  # fmt: skip
    world.profile("  looks: {notebook: 00_look_around, resources: {cpu: 2}}\n")
    answer = world.run(OMP_NUM_THREADS="7", HF_HUB_OFFLINE="0")
    assert answer.returncode == 0, answer.stdout
    assert world.value("looks") == ["0", ":4096:8", "2", "1", "ipc", True]
    assert "TCP" not in (world.store.folder("looks") / "log.txt").read_text()
