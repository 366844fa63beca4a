"""Every stage changes what it says, and leaves the tree as it found it. No process is started."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from lib.data.files import sha256_of, write_json
from tools.faults import blows, models, stores, trial, wishes, workspace
from tools.faults.same import differences
from tools.faults.trial import Pair
from tools.faults.workspace import Answer, Workspace

KEY = "a1b2c3d4e5f6"
PARAMETERS = "epochs: int = 3  # 1..9: passes\nnames: list[str] = []  # any"
PROFILE = """about: a toy
nodes:
  backbone: {notebook: 00_read_model}
  reader: {notebook: 00_read_model, inputs: {model: backbone/model}, params: {epochs: 2}}
"""


def add_result(store, node):
    """A finished result with a language model in it."""
    folder = store.folder(node) / KEY
    (folder / "outputs" / "model").mkdir(parents=True)
    (folder / "outputs" / "model" / "model.safetensors").write_bytes(bytes(range(200)))
    write_json(folder / "outputs" / "model" / "config.json", {"architectures": ["XForCausalLM"]})
    write_json(folder / "record.json", {"cells": [{"index": 1, "seconds": 0.5}]})
    files = {path.relative_to(folder).as_posix(): {
        "sha256": sha256_of(path), "bytes": path.stat().st_size
    } for path in folder.rglob("*") if path.is_file()}  # fmt: skip
    write_json(folder / "manifest.json", {"key": KEY, "components": {}, "files": files,
                                          "notebook": "00_read_model", "made": "2026"})  # fmt: skip
    (store.folder(node) / "current").write_text(KEY)


@pytest.fixture
def pair(tmp_path):
    space = Workspace(tmp_path)
    for name in ("params", "notebooks"):
        (space.root / name).mkdir(parents=True)
    (space.root / "params" / "smoke.yaml").write_text(PROFILE)
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": PARAMETERS}
    (space.root / "notebooks" / "00_read_model.ipynb").write_text(json.dumps({"cells": [cell]}))
    for store in (space.store, space.good):
        for node in ("backbone", "reader"):
            add_result(store, node)
    return Pair(space, space.case("reader"), random.Random(1))


def contents(space):
    return {path.relative_to(space.root).as_posix(): path.read_bytes()
            for path in space.root.rglob("*") if path.is_file()}  # fmt: skip


UNDONE = [
    *wishes.PARAMETERS.stages, *wishes.NETWORK.stages, *models.MODEL.stages,
    *stores.MISSING_INPUT.stages, *stores.DAMAGED_INPUT.stages, stores.DAMAGED.stages[0],
]  # fmt: skip


@pytest.mark.parametrize("stage", UNDONE, ids=lambda stage: stage.__name__)
def test_a_stage_bites_and_is_undone(pair, stage):
    before = contents(pair.space)
    with stage(pair) as staged:
        assert contents(pair.space) != before
        assert staged.words
        assert staged.expect.says
    assert contents(pair.space) == before


def test_cut_weights_are_half_and_the_profile_names_them(pair):
    with models.cut(pair) as staged:
        node = pair.space.profile().nodes["reader"]
        assert node.inputs["model"] == "raw:own_model"
        own = pair.space.root / "data" / "raw" / "own_model"
        assert (own / "model.safetensors").stat().st_size == 100
        assert staged.words == ("smoke", "--only", "reader")
    assert pair.space.profile().nodes["reader"].inputs["model"] == "backbone/model"


def test_garbage_in_an_output_is_seen_as_loss_and_a_missing_result_too(pair):
    assert pair.space.loss("reader") == []
    with stores.garbage(pair):
        assert "changed after it was written" in pair.space.loss("reader")[0]
    pair.space.restore("reader")
    assert pair.space.loss("reader") == []
    with stores.no_upstream_result(pair):
        assert pair.space.loss("backbone") == ["no result is left"]


def test_another_result_differs_by_name(pair):
    assert differences(pair.good, pair.space.store.current("reader")) == []
    path = pair.folder / KEY / "outputs" / "model" / "model.safetensors"
    path.write_bytes(b"other")
    manifest = json.loads((pair.folder / KEY / "manifest.json").read_text())
    manifest["files"]["outputs/model/model.safetensors"]["sha256"] = sha256_of(path)
    write_json(pair.folder / KEY / "manifest.json", manifest)
    found = differences(pair.good, pair.space.store.current("reader"))
    assert found == ["differs: outputs/model/model.safetensors"]


def test_a_node_without_inputs_or_models_is_spared(pair):
    alone = Pair(pair.space, pair.space.case("backbone"), random.Random(1))
    assert stores.MISSING_INPUT.spared(alone) == "reads no other node"
    assert models.MODEL.spared(alone) == "reads no model"
    assert models.MODEL.spared(pair) == ""
    model = pair.space.result("backbone").output("model")
    (model / models.EXPORT).mkdir()
    (model / "model.safetensors").rename(model / models.EXPORT / "model.safetensors")
    assert models.MODEL.spared(pair) == "reads no model"


def test_what_a_killed_run_left_is_named(pair):
    (pair.folder / ".tmp-1").mkdir()
    (pair.folder / "lease.json").write_text("{}")
    assert pair.space.leftovers("reader") == [".tmp-1", "lease.json"]


def test_a_folder_is_untouched_until_a_later_run_could_tell(pair):
    space, scratch = pair.space, pair.folder / f"scratch-{KEY}"
    scratch.mkdir()
    (pair.folder / "failed").mkdir()
    (pair.folder / "log.txt").write_text("a run")
    assert space.untouched("reader")
    (scratch / "epoch.pt").write_text("a checkpoint")
    assert not space.untouched("reader")
    space.restore("reader")
    (pair.folder / "lease.json").write_text("{}")
    assert not space.untouched("reader")
    space.restore("reader")
    with stores.garbage(pair):
        assert not space.untouched("reader")


def test_one_run_stands_for_all_faults_that_left_nothing_and_for_no_other(pair, monkeypatch):
    asked = []

    def run(*words, **_):
        asked.append("--force" in words)
        return Answer(0, "")

    monkeypatch.setattr(pair.space, "run", run)
    for touched in (False, False, True, False):
        if touched:
            (pair.folder / ".tmp-1").mkdir()
        found, said = trial.afterwards(pair, rerun=True)
        assert found == (["left behind: .tmp-1"] if touched else [])
        assert said == "exit code 0"
        pair.space.restore("reader")
    assert asked == [True, False, True, False]


def test_a_process_that_lives_on_is_named():
    with subprocess.Popen(["sleep", "60"]) as process:
        assert workspace.gone([process.pid], seconds=0.1) == [process.pid]
        process.kill()
    assert workspace.gone([process.pid]) == []


def test_a_pause_of_everything_is_noticed():
    code = (
        "import time\nfrom tools.faults.trial import Pauses\n"
        "with Pauses(5.0) as pauses:\n"
        "    time.sleep(1.5)\n    print(pauses.any, flush=True)\n"
        "    while not pauses.any:\n        time.sleep(0.1)\n"
        "print(pauses.any)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "False\n"
        child.send_signal(signal.SIGSTOP)
        time.sleep(7)
        child.send_signal(signal.SIGCONT)
        assert child.stdout.readline() == "True\n"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A project to take the profile from again."""
    (tmp_path / "source" / "params").mkdir(parents=True)
    (tmp_path / "source" / "params" / "smoke.yaml").write_text(PROFILE)
    monkeypatch.setattr(workspace, "ROOT", tmp_path / "source")


@pytest.mark.usefixtures("source")
def test_what_a_killed_matrix_left_is_mended(pair):
    before = contents(pair.space)
    stages = [models.cut(pair), stores.no_upstream_result(pair), stores.garbage(pair)]
    for stage in stages:
        stage.__enter__()  # and never left
    assert contents(pair.space) != before
    pair.space.mend()
    assert contents(pair.space) == before


@pytest.mark.usefixtures("source")
def test_a_result_with_other_times_is_put_back_too(pair):
    """Its readers would otherwise have another key than in the undisturbed run."""
    before = contents(pair.space)
    manifest = pair.folder / KEY / "manifest.json"
    told = json.loads(manifest.read_text())
    write_json(manifest, told | {"made": "2027"})
    assert pair.space.loss("reader") == []
    pair.space.mend()
    assert contents(pair.space) == before


def test_a_small_disk_is_made_again_where_a_matrix_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(blows, "mount", lambda *_: None)
    monkeypatch.setattr(blows.subprocess, "run", lambda *_, **__: None)
    folder = tmp_path / "node"
    for place in (folder, tmp_path / ".node.side"):
        place.mkdir()
        (place / "file").write_text(place.name)
    with blows.disk_of(folder, 1):
        (folder / "file").write_text("while it lasted")
    assert (folder / "file").read_text() == "while it lasted"
    assert [path.name for path in tmp_path.iterdir()] == ["node"]
