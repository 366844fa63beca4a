"""Numbers as text: decimals, seeds, best rows, data frames."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.report.metrics import Metric
from lib.report.nodes import Node, places
from lib.report.summary import find_wins
from lib.report.tables import data_table, digits, metric_tables, shown
from tests.report.factory import result


def score(row, value, better="higher", name="auc", **fields):
    return Metric(name, row, fields.pop("segment", "all"), value, better=better, **fields)


def words(table):
    return [[cell.text for cell in row] for row in table.rows]


@pytest.mark.parametrize(
    ("metric", "decimals"),
    [
        (Metric("a", "", "all", 0.7468, 0.7399, 0.7537), 4),
        (Metric("a", "", "all", 0.7, 0.4, 0.95), 2),
        (Metric("a", "", "all", 61482.0), 0),
        (Metric("a", "", "all", 0.1702), 4),
        (Metric("a", "", "all", 812.34), 1),
        (Metric("a", "", "all", 0.5, 0.5, 0.5), 4),
    ],
)
def test_decimals_show_half_the_interval_with_two_digits(metric, decimals):
    assert digits([metric]) == decimals


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e7, 1e7), st.integers(0, 6))
def test_a_shown_number_is_the_number(value, decimals):
    text = shown(value, decimals).replace("−", "-").replace("\u202f", "")
    error = 0.5 * 10.0**-decimals
    assert math.isclose(float(text), value, rel_tol=0.06, abs_tol=error * (1 + 1e-9))
    assert abs(float(text) - value) <= error * (1 + 1e-9) or "e" in text


def test_lower_is_better_where_the_metric_says_so():
    (table,) = metric_tables([score("A", 0.4, "lower"), score("B", 0.3, "lower")])
    assert [row[1].best for row in table.rows] == [False, True]
    assert "↓ lower is better." in table.notes


def test_one_row_alone_is_not_called_best():
    (table,) = metric_tables([score("A", 0.4), score("The ceiling", 0.9)])
    assert not any(cell.best for row in table.rows for cell in row)


def test_best_is_found_within_each_segment():
    metrics = [score(r, v, segment=s) for r, s, v in
               (("A", "cold", 1.0), ("B", "cold", 2.0), ("A", "warm", 9.0), ("B", "warm", 3.0))]  # fmt: skip
    (table,) = metric_tables(metrics)
    assert [(row[0].text, row[1].text) for row in table.rows if row[2].best] == [
        ("B", "cold"), ("A", "warm")]  # fmt: skip


def test_rows_judged_on_other_rows_do_not_compete():
    told = (("A, out of fold", 0.5, 90), ("B, out of fold", 0.4, 90), ("A, hold-out", 0.6, 30))
    (table,) = metric_tables([score(row, value, n=n) for row, value, n in told])
    assert [row[0].text for row in table.rows if row[1].best] == ["A, out of fold"]


def test_a_node_with_one_row_lists_its_metrics():
    (table,) = metric_tables(
        [score("GRU", 0.5, n=7, seed=1), score("GRU", 12.0, name="users", better=None)]
    )
    assert table.caption == "Metrics of GRU"
    assert [head.text for head in table.columns] == ["metric", "value", "n", "seed"]
    assert words(table) == [["auc ↑", "0.5000", "7", "1"],
                            ["users", "12", "not given", "not given"]]  # fmt: skip


def test_data_tables_say_what_is_missing_and_what_is_left_out(tmp_path):
    values = {"name": ["a", None], "score": [0.123456, float("nan")], "n": [10_000_000, 2],
              "ok": [True, False], "far": [float("inf"), 1.0]}  # fmt: skip
    pq.write_table(pa.table(values), tmp_path / "t.parquet")
    table = data_table(tmp_path / "t.parquet", "c")
    assert words(table) == [["a", "0.1235", "10\u202f000\u202f000", "yes", "infinite"],
                            ["missing", "missing", "2", "no", "1"]]  # fmt: skip
    pq.write_table(pa.table({"x": range(250)}), tmp_path / "t.parquet")
    assert data_table(tmp_path / "t.parquet", "c").notes == ("The first 100 of 250 rows.",)


def test_an_empty_data_table_keeps_its_head(tmp_path):
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), tmp_path / "t.parquet")
    table = data_table(tmp_path / "t.parquet", "c")
    assert ([cell.text for cell in table.columns], table.rows) == (["x"], ())


def node(name, *metrics, notebook="50_train_x", uses=(), state="done"):
    return Node(name, state, name, notebook, uses, result=result(*metrics, node=name))


def test_rows_of_different_nodes_compete_on_the_same_data():
    data, other = node("data", notebook="10_prepare_a"), node("other", notebook="11_prepare_b")
    middle = node("middle", uses=("data",))
    wins = find_wins([
        data, other, middle,
        node("a", score("A", 0.70, n=9, low=0.69, high=0.71), uses=("data",)),
        node("b", score("", 0.75, n=9, low=0.74, high=0.76), uses=("middle",)),
        node("c", score("C", 0.99, n=9), uses=("other",)),
        node("d", score("D", 0.98, n=8), uses=("data",)),  # another population
        node("e", score("E", 0.97, n=9), uses=("data",), state="failed"),
        node("f", score("ceiling", 0.8, n=9), uses=("data",)),
    ])  # fmt: skip
    (win,) = wins
    assert (win.data, win.first.row, win.second.row, win.verdict) == (
        ("data",), "b", "A", "ahead")  # fmt: skip
    assert (win.value, win.lead, win.ceiling.value) == ("0.750", "0.050 (7.1%)", 0.8)


def test_data_that_other_data_is_made_from_is_not_told_twice():
    raw, data = (
        node("raw", notebook="00_simulate_x"),
        node("data", notebook="10_prepare_x", uses=("raw",)),
    )
    models = [
        node("a", score("A", 1.0), uses=("data",)),
        node("b", score("B", 2.0), uses=("data", "raw")),
    ]
    assert [win.data for win in find_wins([raw, data, *models])] == [("data",)]


def test_the_graph_puts_every_node_right_of_what_it_uses():
    nodes = [
        node(f"n{i}", uses=tuple(f"n{j}" for j in range(i) if (i * j) % 3 == 1)) for i in range(12)
    ]
    at = places(nodes)
    assert len(set(at.values())) == len(at) == 12
    assert all(at[use][0] < at[n.name][0] for n in nodes for use in n.uses)


def test_a_node_stands_beside_what_it_uses():
    nodes = [node("a"), node("b"), node("x", uses=("b",)), node("y", uses=("a",))]
    assert places(nodes) == {"a": (0, 0), "b": (0, 1), "y": (1, 0), "x": (1, 1)}
