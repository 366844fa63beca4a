"""What counts as a change, and in which direction."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pipeline.profile import Home
from lib.pipeline.store import Store
from lib.report import compare, describe
from lib.report.metrics import Metric
from tests.report.factory import add_result, metric, result, sha


def one(value, low=None, high=None, better="higher", unit=""):
    return Metric("auc", "A", "all", value, low, high, better=better, unit=unit)


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        (one(0.70, 0.68, 0.72), one(0.73, 0.71, 0.75), True),
        (one(0.70, 0.68, 0.72), one(0.71, 0.69, 0.73), False),
        (one(0.70, 0.68, 0.72), one(0.73, 0.69, 0.77), False),  # the old lies in the new interval
        (one(0.70, 0.68, 0.72), one(0.73), True),  # one interval is enough where only one is known
        (one(0.70), one(0.72), False),  # under 5 % without any interval
        (one(0.70), one(0.75), True),
        (one(0.0), one(0.0, None, None, "lower"), False),
        (one(None), one(0.7), True),
        (one(10.0, unit="rows/s"), one(14.0, unit="rows/s"), False),  # the machine was busy
        (one(10.0, unit="s"), one(25.0, unit="s"), True),
    ],
)
def test_a_metric_moves_beyond_both_intervals(old, new, moved):
    changes = compare(result(old), result(new)).metrics
    assert [change.moved for change in changes] == [moved]


@pytest.mark.parametrize(
    ("better", "verdict"), [("higher", "better"), ("lower", "worse"), (None, "changed")]
)
def test_verdict_follows_what_is_better(better, verdict):
    change = compare(result(one(0.5, better=better)), result(one(0.9, better=better))).metrics[0]
    assert change.verdict == verdict


def test_metrics_that_come_and_go_are_named():
    other = Metric("auc", "B", "all", 0.5)
    changes = compare(result(one(0.5)), result(other))
    assert [change.verdict for change in changes.metrics] == ["gone", "new"]
    assert all(change.moved for change in changes.metrics)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(-10, 10), st.floats(0, 1)),
        unique_by=lambda entry: entry[0],
    ),
    st.dictionaries(st.sampled_from("pqr"), st.integers()),
)
def test_a_result_does_not_differ_from_itself(entries, parameters):
    metrics = [Metric(name, "", "all", v, v - w, v + w) for name, v, w in entries]
    own = result(*metrics, parameters=parameters)
    assert not compare(own, own)
    assert describe(compare(own, own)) == []


def test_both_directions_agree_on_what_moved():
    old, new = result(one(0.5, 0.4, 0.6)), result(one(0.7, 0.65, 0.75))
    there, back = compare(old, new).metrics[0], compare(new, old).metrics[0]
    assert there.moved == back.moved
    assert (there.verdict, back.verdict) == ("better", "worse")


def test_description_names_parameters_causes_and_numbers(tmp_path):
    fields = {"metrics": [metric("auc", 0.7, low=0.69, high=0.71, row="A", better="higher")]}
    old = add_result(tmp_path, "n", key="b" * 12, parameters={"lr": 0.1, "gone": 1},
                     components={"lock": sha(b"old")}, **fields)  # fmt: skip
    fields = {"metrics": [metric("auc", 0.8, low=0.79, high=0.81, row="A", better="higher")]}
    new = add_result(tmp_path, "n", key="c" * 12, parameters={"lr": 0.2}, **fields)
    store = Store(Home(tmp_path), "demo")
    before, after = (store.result("n", folder.name) for folder in (old, new))
    lines = describe(compare(before, after))
    assert lines == [
        "param.lr 0.1 → 0.2",
        "lock changed",
        "param.gone is no longer used",
        "metric auc A: 0.7 → 0.8 (better)",
    ]
