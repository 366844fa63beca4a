"""Profiles are read strictly: every surprise of YAML is an error with its line."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pipeline import WrongUse
from lib.pipeline.plan import select
from lib.pipeline.profile import load_profile, read_yaml


@pytest.mark.parametrize(("text", "value"), [
    ("1e-4", 1e-4), ("1.0e-4", 1e-4), ("-3", -3), ("+.5", 0.5), ("1.", 1.0), ("2E3", 2000.0),
    ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
    ("no", "no"), ("on", "on"), ("012", "012"), ("0x10", "0x10"), ("1_000", "1_000"),
    ("2024-01-01", "2024-01-01"), (".nan", ".nan"), ("12:30", "12:30"), ("'5'", "5"),
])  # fmt: skip
def test_a_word_is_read_as_json_would_read_it(text, value):
    assert read_yaml(f"key: {text}", "x.yaml")[0] == {"key": value}


@settings(max_examples=60, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_writes_is_read_back(number):
    value = read_yaml(f"key: {number!r}", "x.yaml")[0]["key"]
    assert isinstance(value, float)
    assert math.isclose(value, number, rel_tol=0, abs_tol=0)


@pytest.mark.parametrize(("text", "message"), [
    ("a: 1\nb: 2\na: 3", r"x\.yaml, line 3: 'a' is given twice"),
    ("a: {lr: 1, lr: 2}", "line 1: 'lr' is given twice"),
    ("a: &x [1]\nb: *x", "an anchor is used"),
    ("a: {<<: {b: 1}}", "write it out"),
    ("? [1, 2]\n: 3", "keys are plain words"),
    ("a: [1", "not YAML"),
])  # fmt: skip
def test_what_yaml_would_accept_silently_is_refused(text, message):
    with pytest.raises(WrongUse, match=message):
        read_yaml(text, "x.yaml")


@pytest.mark.parametrize(("nodes", "message"), [
    ("  a: {notebok: x}\n", r"params/demo\.yaml, line 3: node a: unknown key 'notebok'.*'notebook'"),
    ("  a: {inputs: {}}\n", "write `notebook: NN_verb_object`"),
    ("  a: {notebook: x, inputs: {i: bb}}\n  b: {notebook: x}\n", "input 'bb' is no node.*'b'"),
    ("  a: {notebook: x, inputs: {i: ../etc}}\n", "is not `node`"),
    ("  a: {notebook: x, inputs: {i: /etc}}\n", "is not `node`"),
    ("  a: {notebook: x, inputs: {i: b}}\n  b: {notebook: x, inputs: {i: a}}\n", "need each other"),
    ("  a-b: {notebook: x}\n", "a node's name is letters"),
    ("  a: {notebook: x, resources: {cpus: 2}}\n", "unknown key 'cpus'.*'cpu'"),
    ("  a: {notebook: x, resources: {cpu: lots}}\n", "expected a number"),
    ("  a: [1]\n", "expected keys with values"),
])  # fmt: skip
def test_a_wrong_profile_names_file_line_and_what_to_write(world, nodes, message):
    world.profile(nodes)
    with pytest.raises(WrongUse, match=message):
        load_profile(world.home, "demo")


def test_an_unknown_profile_names_the_nearest(world):
    world.profile("  a: {notebook: x}\n", name="demo")
    with pytest.raises(WrongUse, match=r"params/dmo\.yaml: no such profile\. Did you mean 'demo'"):
        load_profile(world.home, "dmo")


@pytest.fixture
def diamond(world):
    world.profile("  a: {notebook: x}\n  b: {notebook: x, inputs: {i: a}}\n"
                  "  c: {notebook: x, inputs: {i: a}}\n"
                  "  d: {notebook: x, inputs: {i: b, j: c/x.json, k: 'raw:file'}}\n")  # fmt: skip
    return load_profile(world.home, "demo")


@pytest.mark.parametrize(("only", "start", "until", "chosen"), [
    ("", "", "", "abcd"), ("b", "", "", "b"), ("", "b", "", "bd"), ("", "", "b", "ab"),
    ("", "a", "c", "ac"), ("", "", "bc", "abc"), ("", "b", "c", ""),
])  # fmt: skip
def test_only_from_and_until_choose_along_the_graph(diamond, only, start, until, chosen):
    assert set(select(diamond, set(only), set(start), set(until))) == set(chosen)


def test_an_unknown_node_is_refused_with_the_nearest(pair):
    with pytest.raises(WrongUse, match=r"no node 'prodct' in demo\. Did you mean 'product'"):
        select(load_profile(pair.home, "demo"), {"prodct"}, set(), set())
