"""All results as one typed frame, from the store or from what a report left."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.report import read_results
from lib.report.metrics import collect
from tests.report.factory import add_result, metric, render


@pytest.fixture
def home(tmp_path):
    add_result(tmp_path, "sasrec", notebook="25_evaluate_sasrec", metrics=[
        metric("ndcg@10", 0.25, row="id", low=0.2, high=0.3, n=40, better="higher"),
        metric("seconds", 3.5, unit="s", seed=None)])  # fmt: skip
    add_result(tmp_path, "gbdt", profile="toss", notebook="50_train_gbdt",
               metrics=[metric("score", 0.5)])  # fmt: skip
    return tmp_path


def report(home, to):
    """What the renderer leaves in ``reports``."""
    rows = [row for profile in ("demo", "toss") for row in collect(home, profile)]
    (to / "reports").mkdir(parents=True)
    (to / "reports" / "metrics.json").write_text(json.dumps(rows))


def test_every_metric_is_one_typed_row(home):
    found = read_results("demo", home)
    assert found["metric"].to_list() == ["ndcg@10", "seconds"]
    first, second = found.to_dict("records")
    assert (first["notebook"], first["node"], first["n"]) == ("25_evaluate_sasrec", "sasrec", 40)
    assert (first["value"], first["low"], first["high"]) == (0.25, 0.2, 0.3)
    assert found[["low", "high", "n", "seed"]].isna().to_numpy()[1].all()
    assert second["better"] == ""
    assert str(found["value"].dtype) == "Float64"
    assert str(found["n"].dtype) == "Int64"
    assert str(found["row"].dtype) == "string"


def test_without_a_profile_all_are_read(home):
    assert set(read_results(home=home)["profile"]) == {"demo", "toss"}


def test_on_another_machine_the_report_is_enough(home, tmp_path):
    away = tmp_path / "away"
    report(home, away)
    here, there = read_results("demo", home), read_results("demo", away)
    pd.testing.assert_frame_equal(there.drop(columns="notebook"), here.drop(columns="notebook"))


def test_what_is_in_the_store_is_not_read_twice(home):
    report(home, home)
    assert len(read_results(home=home)) == 3


def test_a_profile_without_results_says_how_to_get_them(home):
    with pytest.raises(LookupError, match=r"'beauty' has no finished node.*demo, toss.*run_all"):
        read_results("beauty", home)


def test_nothing_anywhere_is_an_empty_frame(tmp_path):
    empty = read_results(home=tmp_path)
    assert len(empty) == 0
    assert "notebook" in empty.columns
    assert json.loads(empty.to_json(orient="records")) == []


def test_the_answer_opens_the_index_and_its_page(home):
    add_result(home, "everything", notebook="90_compare_everything", note="They add nothing shown.",
               metrics=[metric("gain", 0.1, row="a")], table={"row": ["a against b"]})  # fmt: skip
    folder = next((home / "data" / "store" / "demo" / "everything").glob("a*"))
    record = json.loads((folder / "record.json").read_text())
    record["tables"][0] |= {"name": "answer", "caption": "What is added"}
    (folder / "record.json").write_text(json.dumps(record))
    index = render(home).read_text("utf-8")
    glance = index.partition('<dl class="glance">')[2].partition("</dl>")[0]
    assert "They add nothing shown." in glance.partition("</div>")[0]
    page = (home / "reports" / "demo" / "everything.html").read_text("utf-8")
    assert 0 < page.index("What is added") < page.index("Metrics")


@pytest.mark.parametrize(
    ("verdict", "told"), [("worse", "ahead of b"), ("no difference shown", "no clear difference")]
)
def test_a_leaderboard_decides_where_two_intervals_overlap(tmp_path, verdict, told):
    rivals = [metric("ndcg@10", value, row=row, low=value - 0.1, high=value + 0.1, n=40,
                     better="higher") for row, value in (("a", 0.25), ("b", 0.2))]  # fmt: skip
    add_result(tmp_path, "sasrec", notebook="25_evaluate_sasrec", metrics=rivals)
    add_result(tmp_path, "everything", notebook="90_compare_everything",
               parameters={"measure": "ndcg@10"})  # fmt: skip
    folder = next((tmp_path / "data" / "store" / "demo" / "everything").glob("a*"))
    board = {"data": "ranking", "row": "SASRec: b", "best": "SASRec: a", "n": 40}
    pq.write_table(
        pa.Table.from_pylist([board | {"best_verdict": verdict}]),
        folder / "outputs" / "leaderboard.parquet",
    )
    glance = render(tmp_path).read_text("utf-8").partition("</dl>")[0]
    assert told in glance.partition("<dt>Best</dt>")[2].partition("</div>")[0]
