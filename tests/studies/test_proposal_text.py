"""A profile as text means what was meant; an estimate grows with the work and says what it rests on."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pipeline.profile import read_yaml
from lib.studies.proposal_cost import RATES, estimate, read_rates, tell_cost
from lib.studies.proposal_text import PlannedNode, profile_text, value

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text(max_size=12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["no", "on", "1e-4", "012", "2024-01-01", "a: b", "# x", "null", "Größe [EUR]"]),
)  # fmt: skip
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_every_value_is_read_back_by_the_runner_as_it_was_meant(given):
    found, _ = read_yaml(f"key: {value(given)}", "x.yaml")
    assert found == {"key": given}


def test_reasons_stand_beside_values_and_change_nothing():
    node = PlannedNode(name="a", notebook="50_train_gbdt", why="Because: # it helps " * 12,
                       inputs={"clicks": "clicks/clicks", "raw": "raw:mine"},
                       params={"rounds": 3, "label": "yes"}, reasons={"rounds": "few: # rows"})  # fmt: skip
    found, _ = read_yaml(profile_text('My "own" log', ["split: by time"], [node], {"a": 75}), "x")
    assert found == {"about": 'My "own" log', "nodes": {"a": {
        "notebook": "50_train_gbdt", "inputs": {"clicks": "clicks/clicks", "raw": "raw:mine"},
        "params": {"rounds": 3, "label": "yes"}, "resources": {"memory_gb": 1, "minutes": 75},
    }}}  # fmt: skip


def node(name, notebook, work):
    return PlannedNode(name=name, notebook=notebook, why="", inputs={}, work=work)


def test_an_estimate_grows_with_the_work_and_names_what_was_never_measured(tmp_path):
    rates = {"machine": "2 cores", "machine_was_busy": True, "notebooks": {
        "50_train_gbdt": [{"node": "x/gbdt", "work": 1e6, "seconds": 10.0}]}}  # fmt: skip
    path = tmp_path / RATES
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rates), "utf-8")
    nodes = [node("small", "50_train_gbdt", 1e6), node("large", "50_train_gbdt", 1e9),
             node("new", "99_new", 1.0)]  # fmt: skip
    cost = estimate(nodes, read_rates(tmp_path))
    assert cost.seconds["large"] - cost.seconds["small"] == (1e9 - 1e6) / 1e5
    assert cost.unknown == ("new",)
    told = "\n".join(tell_cost(cost, nodes))
    assert "large 2.8 h" in told
    assert "busy" in told
    assert "not measured and not counted: new" in told


def test_without_measurements_no_time_is_claimed(tmp_path):
    nodes = [node("a", "50_train_gbdt", 1e6)]
    assert "not estimated" in tell_cost(estimate(nodes, read_rates(tmp_path)), nodes)[0]
