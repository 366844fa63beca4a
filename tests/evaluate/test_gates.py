"""Gates as data: reading rules, the three answers, and the interval behind each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluate import gates
from lib.evaluate.uncertainty import Interval


def interval(low, high):
    return Interval(value=(low + high) / 2, low=low, high=high, p_value=0.5, n=100)


def gate(rule):
    return gates.Gate(name="B", baseline="DCNv2", alternatives=gates.parse_rule(rule))


def answer(rule, low, high, baseline=0.5):
    known = gates.Evidence(baseline=baseline, difference=interval(low, high))
    return gates.decide_on(gate(rule), {"ap": known}).answer


@pytest.mark.parametrize(
    ("rule", "low", "high", "expected"),
    [
        ("ap +0.010", 0.011, 0.02, "adopted"),
        ("ap +0.010", 0.010, 0.02, "adopted"),
        ("ap +0.010", 0.005, 0.02, "not decidable"),
        ("ap +0.010", 0.001, 0.009, "not adopted"),  # better, but surely by too little
        ("ap -0.010", -0.02, -0.011, "adopted"),
        ("ap -0.010", -0.009, 0.02, "not adopted"),
        ("ap +2%", 0.011, 0.02, "adopted"),  # 2 % of .5 is .01
        ("ap +3%", 0.011, 0.02, "not decidable"),
        ("ap -2%", -0.02, -0.011, "adopted"),
        ("ap +0", 1e-9, 0.1, "adopted"),
        ("ap +0", 0.0, 0.1, "not decidable"),
        ("ap +0", 0.0, 0.0, "not adopted"),  # the same model again
    ],
)
def test_the_whole_interval_must_lie_on_one_side(rule, low, high, expected):
    assert answer(rule, low, high) == expected


def test_one_alternative_is_enough_and_all_must_fail():
    either = gate("ap +0.01 or wll -2%")
    good, bad, open_ = interval(0.02, 0.03), interval(-0.03, -0.02), interval(-0.1, 0.1)

    def decide(ap, wll):
        known = {
            "ap": gates.Evidence(baseline=0.3, difference=ap),
            "wll": gates.Evidence(baseline=0.6, difference=wll),
        }
        return gates.decide_on(either, known)

    assert decide(good, good).answer == "adopted"
    assert decide(bad, bad).answer == "adopted"  # wll fell by more than 2 %
    assert decide(bad, good).answer == "not adopted"
    assert decide(bad, open_).answer == "not decidable"
    rows = decide(bad, open_).to_rows()
    assert [row["alternative"] for row in rows] == ["ap +0.01", "wll -2%"]
    assert rows[1]["low"] == pytest.approx(-0.1 / 0.6)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["ap", "ndcg@10", "weighted_log_loss"]), st.sampled_from(["+", "-"]),
    st.integers(0, 900), st.sampled_from(["", "%"]),
)  # fmt: skip
def test_a_rule_reads_back_what_it_says(metric, sign, thousandths, percent):
    text = f"{metric} {sign}{thousandths / 1000:g}{percent}"
    (part,) = gates.parse_rule(text)
    assert str(part) == text
    assert gates.parse_rule(str(part)) == (part,)


def test_deciding_from_rows_is_paired():
    rng = np.random.default_rng(0)
    users = rng.normal(0, 10, 3_000)
    better = users + 0.5 + rng.normal(size=3_000)
    decision = gates.decide(gate("ap +0.3"), {"ap": users}, {"ap": better})
    assert decision.answer == "adopted"
    assert decision.shown[0].n == 3_000
    assert gates.decide(gate("ap +0.3"), {"ap": users}, {"ap": users}).answer == "not adopted"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gates.parse_rule("ap 0.01"), ValueError, "cannot read 'ap 0.01'"),
        (lambda: gates.parse_rule("ap +0.01 or"), ValueError, "cannot read"),
        (lambda: gate("recall +1").__class__(name="x", baseline="y", alternatives=()), ValueError, "no alternative"),
        (lambda: gates.decide_on(gate("ap +0.1"), {}), KeyError, "asks for 'ap'"),
        (lambda: answer("ap +1%", 0.1, 0.2, baseline=0.0), ValueError, "baseline is 0"),
        (
            lambda: gates.Alternative(metric="a", better="higher", threshold=-1.0, relative=False),
            ValueError, "threshold=-1.0",
        ),
        (
            lambda: gates.Alternative(metric="a", better="up", threshold=1.0, relative=False),
            ValueError, "better='up'",
        ),
    ],
)  # fmt: skip
def test_wrong_gates_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
