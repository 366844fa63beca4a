"""The matrix of faults: its judgement, its page, and three pairs for real."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from lib.data.files import write_json
from tools.faults.blows import MEMORY
from tools.faults.hostile import TEXTS, csv_shape, harm_of, poison_tables, poison_title
from tools.faults.same import lasting, only_clocks, without_clocks
from tools.faults.table import Matrix, others, page
from tools.faults.trial import Expect, Verdict, judge, told
from tools.faults.workspace import Answer

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = "○ sasrec: blocked\n    needs histories; run `run_all.py smoke --until histories`\n"


def test_an_answer_needs_its_code_and_every_part_of_its_message():
    expect = Expect(3, {"the node": "needs histories", "the remedy": r"run `run_all\.py"})
    assert judge(expect, Answer(3, BLOCKED)) == []
    assert judge(expect, Answer(1, "needs histories")) == [
        "exit code 1, expected 3", "the message lacks the remedy",
    ]  # fmt: skip


def test_what_only_stands_in_the_shown_traceback_is_no_message():
    said = "✗ sasrec: failed\n      | run `run_all.py`\n"
    assert judge(Expect(1, {"the remedy": "run `"}), Answer(1, said)) == [
        "the message lacks the remedy"
    ]


def test_a_traceback_of_the_runner_is_a_problem_and_one_of_a_cell_is_not():
    assert judge(Expect(1, {}), Answer(1, "Traceback (most recent call last):\n  File")) == [
        "a traceback of the runner"
    ]
    assert judge(Expect(1, {}), Answer(1, "      | Traceback (most recent call last):")) == []


def test_the_message_is_kept_without_the_course_of_the_run():
    said = "▸ sasrec: 25_evaluate_sasrec (forced)\n" + BLOCKED + "1 blocked in 0.2 s\n"
    assert told(Answer(3, said)) == (
        "○ sasrec: blocked / needs histories; run `run_all.py smoke --until histories`"
    )


def test_an_expected_line_of_the_course_is_kept_and_the_count_stands_for_nothing_else():
    said = "▸ gbdt: 50_train_gbdt (outputs/a changed)\n✓ gbdt: ran 2.1 s\n1 ran in 2.2 s\n"
    expect = Expect(0, {"the file": "outputs/. changed"})
    assert told(Answer(0, said), expect) == (
        "▸ gbdt: 50_train_gbdt (outputs/a changed) / ✓ gbdt: ran 2.1 s"
    )
    assert told(Answer(0, said), Expect(0, {})) == "✓ gbdt: ran 2.1 s"
    assert told(Answer(0, "1 done in 0.1 s\n")) == "1 done in 0.1 s"
    assert told(Answer(-9, "")) == "exit code -9"
    assert told(Answer(1, "x" * 500)) == "x" * 400 + "…"


@pytest.mark.parametrize(("now", "same"), [
    ({"auc": [0.5], "seconds": [2.0]}, True), ({"auc": [0.6], "seconds": [1.0]}, False),
    ({"auc": [0.5]}, True),
])  # fmt: skip
def test_tables_may_differ_in_measured_times_and_in_nothing_else(tmp_path, now, same):
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pl.DataFrame({"auc": [0.5], "seconds": [1.0]}).write_parquet(paths[0])
    pl.DataFrame(now).write_parquet(paths[1])
    assert only_clocks(*paths) is same


@pytest.mark.parametrize(("now", "same"), [("0.50,9.1", True), ("0.5,2.0", False)])
def test_csv_may_differ_in_measured_times_and_in_no_digit_else(tmp_path, now, same):
    paths = tmp_path / "a.csv", tmp_path / "b.csv"
    for path, row in zip(paths, ("0.50,2.0", now), strict=True):
        path.write_text(f"auc,seconds\n{row}\n")
    assert only_clocks(*paths) is same


def test_an_event_file_is_known_by_its_place_in_folders_and_manifests(tmp_path):
    names = [f"fold/events.out.tfevents.{n}.host.{n}.0" for n in (17, 18)]
    assert lasting(names[0]) == lasting(names[1]) == "fold/events.out.tfevents"
    assert without_clocks({names[0]: {"kind": 1}}) == without_clocks({names[1]: {"kind": 1}})
    assert only_clocks(tmp_path / lasting(names[0]), tmp_path / lasting(names[1]))


def test_json_is_compared_without_its_times():
    fast, slow = ({"rows": [{"rows_per_second": n, "auc": 0.5}]} for n in (1.0, 2.0))
    assert without_clocks(fast) == without_clocks(slow) == {"rows": [{"auc": 0.5}]}


def test_a_manifest_may_differ_in_hashes_of_files_that_hold_times(tmp_path):
    made = {"one": ("a1", "x"), "two": ("b2", "x"), "other": ("a1", "y")}
    paths = {name: tmp_path / name / "manifest.json" for name in made}
    for name, (sha, kind) in made.items():
        paths[name].parent.mkdir()
        told_ = {"files": {"rung.json": {"sha256": sha, "bytes": 9}}, "kind": kind}
        paths[name].write_text(json.dumps(told_))
    assert only_clocks(paths["one"], paths["two"])
    assert not only_clocks(paths["one"], paths["other"])


def test_hostile_values_are_the_same_in_all_files_and_survive_csv(tmp_path):
    frames = [pl.DataFrame({"id": ["1", "2", "3"], "site": ["a", "b", "c"]}),
              pl.DataFrame({"id": ["4"], "site": ["b"]})]  # fmt: skip
    paths = [tmp_path / f"{number}.csv" for number in range(2)]
    for frame, path in zip(frames, paths, strict=True):
        frame.write_csv(path)
    poison_tables(paths, ("site",))
    found = [pl.read_csv(path, infer_schema=False)["site"].to_list() for path in paths]
    assert found == [["a", TEXTS[0], "c"], [TEXTS[0]]]
    assert csv_shape(paths[0]) == (4, {2})


def test_every_hostile_text_reaches_a_title():
    titles = [poison_title("Blue mug", number) for number in range(8 * len(TEXTS))]
    assert all(any(text in title for title in titles) for text in TEXTS)
    assert titles.count("Blue mug") >= len(titles) // 2


@pytest.mark.parametrize(("source", "harm"), [
    ("<p>&lt;script&gt; onclick=1</p>", []), ("<img src=x onerror=go()>", ["onerror="]),
    ("<script>", ["script"]), ("a\u202eb\x1b", ["U+001B", "U+202E"]),
])  # fmt: skip
def test_what_a_page_must_not_hold_is_found(source, harm):
    assert harm_of(source) == harm


def test_the_page_shows_problems_and_what_was_not_tried(tmp_path):
    matrix = Matrix(tmp_path / "faults.json", (MEMORY,))
    matrix.add("sasrec", MEMORY.name, Verdict("problem", ["exit code 0, expected 1"], ["x"]))
    matrix.add("gbdt", MEMORY.name, Verdict("ok", [], ["MemoryError | peak memory of 9 MB"]))
    matrix.add("speed", MEMORY.name, Verdict("reads no memory"))
    again = Matrix(tmp_path / "faults.json", (MEMORY,))
    assert again.has("gbdt", MEMORY.name)
    told_ = {"pairs": again.pairs, "command": "make faults", "commit": "abc", "busy machine": True,
             "machine": "2 cores", "summary": again.summary(4)}  # fmt: skip
    text = page(told_, (MEMORY,), {"sasrec": "25_a", "gbdt": "50_b", "din": "55_c",
                                  "speed": "91_d"})  # fmt: skip
    assert "3 of 4 pairs tried: 1 ok, 1 problems, 1 cannot happen" in text
    assert "blank: not tried. Why it cannot: reads no memory (1)" in text
    assert "| 25_a | sasrec | ✗ |" in text
    assert "| 50_b | gbdt | ✓ |" in text
    assert "| 55_c | din |  |" in text
    assert "| 91_d | speed | – |" in text
    assert "- **sasrec, no memory**: exit code 0, expected 1" in text
    assert "`MemoryError ¦ peak memory of 9 MB`" in text


def test_pairs_of_an_earlier_commit_stay_until_they_are_tried_again_and_say_so(tmp_path):
    old, new = (Matrix(tmp_path / f"{name}.json", (MEMORY,)) for name in ("old", "new"))
    for node in ("sasrec", "gbdt"):
        old.add(node, MEMORY.name, Verdict("problem", ["lost"], ["x"]))
    write_json(tmp_path / "told.json", {"commit": "abc", "pairs": old.pairs})
    new.add("gbdt", MEMORY.name, Verdict("ok", [], ["x"]))
    new.keep_earlier(tmp_path / "told.json")
    assert new.pairs["sasrec"][MEMORY.name]["commit"] == "abc"
    assert "commit" not in new.pairs["gbdt"][MEMORY.name]
    assert new.problems() == 1
    assert others(new.pairs) == " (but 1 at abc)"
    assert Matrix(tmp_path / "new.json", (MEMORY,)).pairs.keys() == {"gbdt"}  # only published


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_pairs_for_real(tmp_path):
    faults = ["wrong parameters", "kernel killed", "damaged result"]
    words = [word for fault in faults for word in ("--only", fault)]
    ran = subprocess.run(
        [sys.executable, "-m", "tools.faults", "--work", str(tmp_path / "Große Welt"),
         "--until", "marketplace", "--node", "00_simulate_marketplace", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    pairs = json.loads((tmp_path / "Große Welt" / "faults.json").read_text("utf-8"))["marketplace"]
    assert {fault: pairs[fault]["state"] for fault in faults} == dict.fromkeys(faults, "ok")
    assert "the kernel died (signal SIGKILL)" in pairs["kernel killed"]["said"][0]
