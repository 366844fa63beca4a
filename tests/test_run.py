"""``lib.run`` by itself: what a notebook may declare, and each way to get it wrong."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

import lib
from lib.pipeline import WrongUse
from lib.pipeline.profile import CODE_ROOT
from lib.run import Run

NOTEBOOK = {"cell_type": "code", "metadata": {"tags": ["parameters"]},
            "source": "epochs: int = 3  # 1..9: passes\nseed: int = 7  # 0..: seed"}  # fmt: skip


@pytest.fixture
def context(tmp_path, monkeypatch):
    """What the runner leaves for a kernel."""
    home = tmp_path / "home"
    (home / "notebooks").mkdir(parents=True)
    (home / "notebooks" / "10_try_calls.ipynb").write_text(json.dumps({"cells": [NOTEBOOK]}))
    work = tmp_path / "work"
    for name in ("outputs", "figures"):
        (work / name).mkdir(parents=True)
    content = {"home": str(home), "profile": "demo", "node": "try", "notebook": "10_try_calls",
               "nonce": "n", "work": str(work), "device": "cpu", "scratch": str(tmp_path / "scratch"),
               "inputs": {"x": str(tmp_path)}, "parameters": {"epochs": 3, "seed": 7},
               "progress": str(tmp_path / "progress.json")}  # fmt: skip
    (tmp_path / "context.json").write_text(json.dumps(content))
    monkeypatch.setenv("LINGREC_HOME", str(home))
    monkeypatch.setenv("LINGREC_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr("lib.run.leave_with_parent", lambda parent: None)
    return content


@pytest.fixture
def run(context):
    return lib.start("10_try_calls", {"epochs": 3, "seed": 7})


def finished(tmp_path):
    return json.loads((tmp_path / "work" / "finish.json").read_text())


def test_start_gives_parameters_seed_device_and_inputs(run, tmp_path):
    assert isinstance(run, Run)
    assert (run.parameters, run.seed, run.device, run.profile, run.node) == (
        {"epochs": 3, "seed": 7}, 7, "cpu", "demo", "try")  # fmt: skip
    assert run.input("x") == tmp_path
    assert run.has_input("x")
    assert not run.has_input("y")
    with pytest.raises(WrongUse, match=r"node try has no input 'xx'\. Did you mean 'x'"):
        run.input("xx")


@pytest.mark.parametrize(("name", "variables", "message"), [
    ("10_try_call", {"epochs": 3, "seed": 7}, "stands in the notebook '10_try_calls'"),
    ("10_try_calls", {"epochs": 3}, "parameter 'seed' has no value; run the parameters cell"),
    ("10_try_calls", {"epochs": 4, "seed": 7}, "not those that the runner passed"),
    ("10_try_calls", {"epochs": 99, "seed": 7}, "epochs = 99 is out of range"),
])  # fmt: skip
def test_start_refuses_what_does_not_fit(context, name, variables, message):
    with pytest.raises(WrongUse, match=message):
        lib.start(name, variables)


def test_starting_twice_gives_the_same_random_numbers(context):
    drawn = []
    for _ in range(2):
        lib.start("10_try_calls", {"epochs": 3, "seed": 7})
        drawn.append(np.random.rand(3).tolist())  # noqa: NPY002 - the global one is what is seeded
    assert drawn[0] == drawn[1]


def test_arrays_frames_and_values_are_read_back_equal(run, tmp_path):
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    frame = pl.DataFrame({"name": ["a", "<b>"], "value": [1.5, None]})
    run.save("deep/array.npy", array)
    run.save("frame.parquet", frame)
    run.save("pandas.parquet", frame.to_pandas())
    run.save("values.json", {"b": [1, None], "a": "ü"})
    run.finish()
    outputs = tmp_path / "work" / "outputs"
    assert np.array_equal(np.load(outputs / "deep/array.npy", allow_pickle=False), array)
    assert pl.read_parquet(outputs / "frame.parquet").equals(frame)
    assert pl.read_parquet(outputs / "pandas.parquet").equals(frame)
    assert json.loads((outputs / "values.json").read_text()) == {"b": [1, None], "a": "ü"}
    assert finished(tmp_path)["outputs"] == [
        "outputs/deep/array.npy", "outputs/frame.parquet", "outputs/pandas.parquet",
        "outputs/values.json"]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), [
    ("/etc/x.json", 1, "expected a relative name"), ("../x.json", 1, "expected a relative name"),
    ("x.pkl", 1, "no writer for '.pkl'"), ("x", 1, "no writer for ''"),
    ("x.npy", np.array([object()]), "an array of object"),
])  # fmt: skip
def test_save_refuses_other_places_and_formats(run, name, value, message):
    with pytest.raises(WrongUse, match=message):
        run.save(name, value)


def test_json_without_a_meaning_is_refused_and_leaves_no_file(run, tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        run.save("x.json", float("nan"))
    assert list((tmp_path / "work" / "outputs").iterdir()) == []


def test_a_metric_is_named_once_per_row_and_segment_and_finite(run, tmp_path):
    run.metric("auc", np.float32(0.5), ci=(0.4, 0.6), n=np.int64(9), better="higher")
    run.metric("auc", 0.6, row="other")
    run.metric("auc", 0.7, segment="new")
    with pytest.raises(WrongUse, match="is recorded twice"):
        run.metric("auc", 0.8)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(WrongUse, match="expected finite numbers"):
            run.metric("other", bad)
        with pytest.raises(WrongUse, match="expected finite numbers"):
            run.metric("other", 1.0, ci=(bad, 1.0))
    run.finish()
    first = finished(tmp_path)["metrics"][0]
    assert (first["value"], first["low"], first["high"], first["n"]) == (0.5, 0.4, 0.6, 9)


def test_a_figure_is_a_picture_with_words(run, tmp_path):
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    run.figure("line", figure, alt="A rising line", caption="Rising")
    with pytest.raises(WrongUse, match="alt is empty"):
        run.figure("other", figure, alt=" ")
    run.finish()
    assert finished(tmp_path)["figures"] == [
        {"name": "line", "path": "figures/line.png", "alt": "A rising line", "caption": "Rising"}]  # fmt: skip
    assert (tmp_path / "work/figures/line.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_is_kept_as_parquet(run, tmp_path):
    run.table("results", pl.DataFrame({"a": [1]}), caption="All of it")
    run.finish()
    table = finished(tmp_path)["tables"][0]
    assert (table["name"], table["caption"]) == ("results", "All of it")
    assert (tmp_path / "work" / table["path"]).exists()


def test_finish_misses_what_was_declared_and_not_written(run):
    run.path("folder")
    with pytest.raises(WrongUse, match="declared but not written: outputs/folder"):
        run.finish()


def test_progress_reaches_the_runner_without_numbers_that_json_lacks(run, tmp_path):
    run.progress(1, 10, loss=0.25, other=float("nan"))
    run.progress(2, 10, loss=0.5)  # within half a second: not told
    told = json.loads((tmp_path / "progress.json").read_text())
    assert told == {"done": 1, "total": 10, "numbers": {"loss": 0.25}}


@pytest.fixture
def lab(context, tmp_path, monkeypatch):
    """A profile with three nodes of one notebook, and nobody's context: a run by hand."""
    monkeypatch.delenv("LINGREC_CONTEXT")
    nodes = {"a": {"epochs": 3}, "b": {"epochs": 5, "seed": 1}, "c": {"epochs": 9, "seed": 1}}
    lines = [f"  {name}: {{notebook: 10_try_calls, inputs: {{x: 'raw:{name}'}}, "
             f"params: {json.dumps(params)}}}" for name, params in nodes.items()]  # fmt: skip
    (tmp_path / "home" / "params").mkdir()
    text = "\n".join(["about: Three ways", "nodes:", *lines])
    (tmp_path / "home" / "params" / "demo.yaml").write_text(text)


@pytest.mark.parametrize(("epochs", "seed", "node"), [(3, 7, "a"), (5, 7, "b"), (9, 1, "c")])
def test_by_hand_the_inputs_are_those_of_the_node_with_the_same_values(
    lab, capsys, epochs, seed, node
):
    run = lib.start("10_try_calls", {"epochs": epochs, "seed": seed})
    assert (run.node, run.input("x").name) == (node, node)
    said = capsys.readouterr().out
    assert f"with the inputs of {node} in" in said
    assert ("seed = 1" in said) == (node == "b"), "it says which value that node has"


def test_by_hand_captions_and_the_result_are_seen_on_the_spot(lab, monkeypatch):
    seen = []
    monkeypatch.setattr("lib.run.show", lambda value, _=None: seen.append(value))
    run = lib.start("10_try_calls", {"epochs": 3, "seed": 7})
    frame = pl.DataFrame({"a": [1]})
    run.table("results", frame, caption="All of it")
    run.note("It works.")
    assert [getattr(value, "data", value) for value in seen] == ["All of it", frame, "It works."]


def test_by_hand_a_short_line_of_progress_wipes_the_long_one_before_it(lab, capsys):
    run = lib.start("10_try_calls", {"epochs": 3, "seed": 7})
    capsys.readouterr()
    run.progress(1, 2, loss=0.25, rows_per_second=12345.0)
    run.progress(2, 2)
    first, last = capsys.readouterr().out.split("\r")[1:]
    assert len(last) >= len(first.rstrip())


def test_importing_lib_loads_nothing_heavy():
    code = "import sys, lib, lib.run; print([m for m in ('torch', 'numpy', 'pandas', 'polars', " \
        "'matplotlib', 'IPython') if m in sys.modules])"  # fmt: skip
    said = subprocess.run([sys.executable, "-c", code], cwd=CODE_ROOT, capture_output=True,
                          text=True, check=True).stdout  # fmt: skip
    assert said.strip() == "[]"
