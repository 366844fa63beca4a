"""What runs and why, without running anything: results are put into the store by hand."""

import json
import os
import resource
import subprocess
import sys
import time

import pytest

from lib.pipeline import WrongUse
from lib.pipeline.keys import Hashes, imported_names, library_files
from lib.pipeline.plan import plan
from lib.pipeline.profile import CODE_ROOT, load_profile


def verdicts(world, **options):
    profile = load_profile(world.home, "demo")
    steps = plan(world.home, profile, profile.order(), Hashes(world.home.store), **options)
    return {name: (step.state, *step.reasons) for name, step in steps.items()}


@pytest.fixture
def finished(pair):
    pair.complete("numbers", "[3]")
    pair.complete("product", "6")
    return pair


def edit(world, notebook, old, new):
    path = world.root / "notebooks" / f"{notebook}.ipynb"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_nothing_is_done_before_anything_ran(pair):
    assert verdicts(pair) == {"numbers": ("run", "never finished"),
                              "product": ("run", "waits for numbers")}  # fmt: skip


def test_complete_nodes_are_done(finished):
    assert verdicts(finished) == {"numbers": ("done",), "product": ("done",)}


def test_a_changed_parameter_is_named_with_both_values(finished):
    finished.profile("  numbers: {notebook: 00_make_numbers, params: {steps: 4}}\n"
                     "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers/out.json}}\n")  # fmt: skip
    assert verdicts(finished)["numbers"] == ("run", "param.steps 3 → 4")
    assert verdicts(finished)["product"] == ("maybe", "waits for numbers")


def test_a_changed_code_cell_runs_and_changed_prose_does_not(finished):
    edit(finished, "10_multiply_numbers", "# Why?", "# Why on earth?")
    assert verdicts(finished)["product"] == ("done",)
    edit(finished, "10_multiply_numbers", "data[0] * factor", "factor * data[0]")
    assert verdicts(finished)["product"] == ("run", "code changed")


def test_a_comment_on_a_parameter_does_not_run_anything(finished):
    edit(finished, "00_make_numbers", "how many", "how very many")
    assert verdicts(finished)["numbers"] == ("done",)


def test_a_lower_limit_that_the_value_breaks_is_found_without_running(finished):
    edit(finished, "00_make_numbers", "1..10: how", "4..10: how")
    assert finished.run("demo", "--explain").returncode == 2


def test_reverting_a_parameter_finds_the_old_result(finished):
    before = (finished.root / "params" / "demo.yaml").read_text()
    finished.profile("  numbers: {notebook: 00_make_numbers, params: {steps: 4}}\n"
                     "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers/out.json}}\n")  # fmt: skip
    finished.complete("numbers", "[4]")
    (finished.root / "params" / "demo.yaml").write_text(before)
    assert verdicts(finished)["numbers"] == ("done", "an earlier result fits again")


def test_equal_outputs_of_a_changed_node_stop_the_work_from_spreading(finished):
    edit(finished, "00_make_numbers", "steps, run.seed", "steps , run.seed")
    finished.complete("numbers", "[3]")
    assert verdicts(finished)["product"] == ("done",)


def test_only_the_named_part_of_an_input_counts(finished):
    result = finished.current("numbers")
    assert result.output_hash("out.json") == result.manifest["files"]["outputs/out.json"]["sha256"]
    assert result.output_hash("") != result.output_hash("out.json")
    assert result.output_hash("out") is None


def test_an_input_that_its_node_does_not_make_is_wrong_use_with_the_nearest(finished):
    finished.profile("  numbers: {notebook: 00_make_numbers}\n"
                     "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers/outt.json}}\n")  # fmt: skip
    answer = finished.run("demo", "--explain")
    assert answer.returncode == 2
    assert "Did you mean 'out.json'" in answer.stderr


@pytest.mark.parametrize("damage", ["[9]", "", "[3, 4]"])  # same size, empty, longer
def test_garbage_in_an_output_is_corrupt_before_anybody_reads_it(finished, damage):
    output = finished.current("numbers").output("out.json")
    output.write_text(damage)
    assert verdicts(finished)["numbers"][0] == "corrupt"


def test_garbage_with_the_old_times_is_found_too(finished):
    output = finished.current("numbers").output("out.json")
    verdicts(finished)
    times = output.stat().st_atime_ns, output.stat().st_mtime_ns
    output.write_text("[9]")
    os.utime(output, ns=times)
    assert verdicts(finished)["numbers"][0] == "corrupt"


def test_a_missing_output_or_a_torn_manifest_is_no_result(finished):
    finished.current("product").output("out.json").unlink()
    assert verdicts(finished)["product"][0] == "corrupt"
    manifest = finished.current("product").folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:200])
    assert verdicts(finished)["product"] == ("run", "never finished")


@pytest.fixture
def raw(world):
    world.notebook("00_read_file", "run.finish()")
    world.profile("  reader: {notebook: 00_read_file, inputs: {file: 'raw:in.csv'}}\n")
    (world.root / "data/raw/in.csv").write_text("one")
    world.complete("reader")
    return world


def test_changed_content_with_an_older_time_runs_again(raw):
    path = raw.root / "data/raw/in.csv"
    assert verdicts(raw)["reader"] == ("done",)
    path.write_text("two")
    os.utime(path, (1, 1))
    assert verdicts(raw)["reader"] == ("run", "input.file changed")


def test_touched_content_does_not_run_again(raw):
    os.utime(raw.root / "data/raw/in.csv")
    assert verdicts(raw)["reader"] == ("done",)


def test_a_missing_raw_file_blocks_with_the_remedy(raw):
    (raw.root / "data/raw/in.csv").unlink()
    answer = raw.run("demo", "--explain")
    assert answer.returncode == 3
    assert "data/raw/in.csv is not there" in answer.stdout
    assert "run_all.py fetch demo" in answer.stdout


def test_a_changed_lock_file_runs_again(finished):
    (finished.root / "requirements.lock").write_text("numpy==0.1\n")
    assert verdicts(finished)["numbers"] == ("run", "lock changed")


def test_the_device_class_is_part_of_the_key_of_nodes_that_ask_for_a_gpu(finished, monkeypatch):
    finished.profile("  numbers: {notebook: 00_make_numbers, resources: {gpu: 1}}\n"
                     "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers/out.json}}\n")  # fmt: skip
    monkeypatch.setenv("LINGREC_DEVICE", "cpu")
    assert verdicts(finished)["numbers"] == ("done",)
    monkeypatch.setenv("LINGREC_DEVICE", "cuda")
    assert verdicts(finished)["numbers"] == ("run", "device cpu → cuda")


def test_hashes_remember_only_what_cannot_have_changed_unseen(tmp_path):
    path = tmp_path / "store.txt"
    path.write_text("x")
    hashes = Hashes(tmp_path / "store")
    hashes.of(path)
    assert not hashes.fresh  # just written: it may change again within the clock's grain
    os.utime(path, (1, 1))
    time.sleep(0.03)
    hashes.of(path)
    assert list(hashes.fresh) == ["store.txt"]


def test_a_torn_line_in_the_memory_of_hashes_is_ignored(tmp_path):
    (tmp_path / "hashes.jsonl").write_text('["a", 1, 2, 3, 4, "sha"]\n["b", 1, 2\n\x00\n[]\n')
    assert list(Hashes(tmp_path).known) == ["a"]


def test_the_closure_follows_imports_through_functions_and_packages(tmp_path):
    package = tmp_path / "lib" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "lib" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from .one import x\n")
    (package / "one.py").write_text("def f():\n    import lib.two\n")
    (package / "words.txt").write_text("data beside a module")
    (tmp_path / "lib" / "two.py").write_text("import os\n")
    (tmp_path / "lib" / "unused.py").write_text("")
    found = library_files(["from lib import deep"], Hashes(tmp_path / "store"), tmp_path)
    assert [path.name for path in found] == ["__init__.py", "__init__.py", "one.py", "words.txt",
                                             "two.py"]  # fmt: skip


def test_names_are_found_in_every_form_of_import():
    code = (
        "import lib.a.b as x\nfrom lib.c import d\nfrom . import e\nfrom .f import g\nimport numpy"
    )
    found = imported_names(code, "lib.p")
    assert {"lib.a.b", "lib.c", "lib.c.d", "lib.p.e", "lib.p.f"} <= found
    assert not any(name.startswith("numpy") for name in found)


def test_a_module_or_cell_that_is_no_python_is_wrong_use_with_its_line(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("x = 1\ny = (\n")
    with pytest.raises(WrongUse, match=r"__init__\.py, line 2: '\(' was never closed"):
        library_files(["import lib"], Hashes(tmp_path), tmp_path)


def test_what_a_module_imports_is_remembered_by_its_content(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("import lib.one\n")
    (tmp_path / "lib" / "one.py").write_text("")
    hashes = Hashes(tmp_path)
    for text, count in (("import lib.one\n", 2), ("import os\n", 1)):
        (tmp_path / "lib" / "__init__.py").write_text(text)
        assert len([f for f in library_files(["import lib"], hashes, tmp_path)]) == count


def chain(world, count):
    world.notebook("00_make_numbers", "run.finish()", parameters="steps: int = 1  # 0..: n")
    lines = [f"  n{n}: {{notebook: 00_make_numbers, params: {{steps: {n}}}"
             + (f", inputs: {{x: n{n - 1}/out.json}}" if n else "") + "}\n" for n in range(count)]  # fmt: skip
    world.profile("".join(lines))
    for n in range(count):
        world.complete(f"n{n}", str(n))


@pytest.mark.parametrize("flag", ["--explain", "--dry-run"])
def test_explain_changes_not_one_file(finished, flag):
    finished.current("numbers").output("out.json").write_text("[9]")
    before = finished.files()
    assert finished.run("demo", flag).returncode == 0
    assert finished.files() == before


def child_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_explain_and_status_and_an_idle_run_are_quick_for_thirty_nodes(world):
    chain(world, 30)
    for words, limit in ((["demo", "--explain"], 2.0), (["demo"], 2.0), (["run-one", "n29"], 0.5)):
        world.run(*words)  # learns hashes
        before, files = child_seconds(), world.files()
        answer = world.run(*words)
        seconds = child_seconds() - before  # of a core, so that other tests do not count
        assert answer.returncode == 0, answer.stderr
        assert seconds < limit, f"{words}: {seconds:.2f} s"
        assert world.files() == files  # nothing to do writes nothing


def test_the_runner_does_not_import_what_only_notebooks_need():
    code = "import sys, lib.pipeline.cli as c; print([m for m in ('torch','papermill','pandas','numpy','rich','nbformat') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], cwd=CODE_ROOT, capture_output=True, text=True,
                          check=True).stdout  # fmt: skip
    assert json.loads(said.replace("'", '"')) == []
