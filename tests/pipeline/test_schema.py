"""The parameters cell as a schema, and the messages of each way to get it wrong."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pipeline import WrongUse
from lib.pipeline.schema import check_parameters, parse_schema

CELL = """epochs: int = 3  # 1..1000: passes
lr: float = 1e-3  # >0: Adam's step
split: Literal["last", "ratio"] = "last"  # protocol
maps: list[int] = [8, 8]  # ..64: feature maps
limit: float | None = None  # >=0.5: of something
names: list[str] = []  # words
flags: dict = {}  # anything
fast: bool = False  # whether
"""


def schema(cell=CELL):
    code = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": cell}
    return parse_schema({"cells": [code]}, "x.ipynb")


def check(**values):
    return check_parameters(schema(), values, lambda name: f"demo.yaml: {name}")


def test_defaults_fill_what_is_not_given():
    assert check(epochs=5)["lr"] == 1e-3
    assert check(epochs=5)["epochs"] == 5


def test_an_int_is_a_float_where_a_float_is_declared():
    assert repr(check(lr=1)["lr"]) == "1.0"
    assert check(limit=None)["limit"] is None
    assert check(limit=2)["limit"] == 2.0


@pytest.mark.parametrize(("values", "message"), [
    ({"epoch": 1}, r"demo\.yaml: epoch: unknown parameter 'epoch'\. Did you mean 'epochs'"),
    ({"epochs": 3.0}, r"epochs = 3\.0: is a float; write 3; expected int >= 1 and <= 1000"),
    ({"epochs": True}, "is a bool; write an int"),
    ({"epochs": "3"}, "is a str"),
    ({"epochs": 0}, r"epochs = 0 is out of range; expected int >= 1 and <= 1000 \(passes\)"),
    ({"epochs": None}, "is a NoneType"),
    ({"lr": 0}, "out of range; expected float > 0"),
    ({"lr": float("nan")}, "not a finite number"),
    ({"lr": float("inf")}, "not a finite number"),
    ({"split": "lsat"}, r"not one of the choices\. Did you mean 'last'"),
    ({"maps": [8, 65]}, r"out of range; expected list\[int\] <= 64"),
    ({"maps": [8, 1.5]}, "is a float"),
    ({"maps": 8}, "write a list"),
    ({"maps": (8, 8)}, "write a list"),
    ({"limit": 0.1}, "out of range"),
    ({"limit": "2"}, r"is a str; write a float; expected float \| None"),
    ({"split": "x"}, r"not one of the choices\. Known: \w+(, \w+)*; expected"),
    ({"names": [1]}, "write a str"),
    ({"flags": {1: 2}}, "write a str"),
    ({"flags": {"a": object()}}, "which JSON does not have"),
    ({"flags": {"a": [float("nan")]}}, "finite"),
    ({"fast": 1}, "write a bool"),
])  # fmt: skip
def test_a_wrong_value_is_told_with_what_to_write(values, message):
    with pytest.raises(WrongUse, match=message):
        check(**values)


@pytest.mark.parametrize(("cell", "message"), [
    ("epochs = 3", r"line 1: 'epochs = 3' is not `name: type = literal`"),
    ("a: int = 1\na: int = 2", "line 2: a is given twice"),
    ("a: int = len([1])", "must be a literal"),
    ("a: int = 1.5  # x", "is a float"),
    ("a: int = 5  # 6..: x", "out of range"),
    ("a: tuple = 1", "the type tuple is not one"),
    ("a: int = (", "was never closed"),
    ("import os", "is not `name: type = literal`"),
])  # fmt: skip
def test_a_wrong_parameters_cell_is_told_with_its_line(cell, message):
    with pytest.raises(WrongUse, match=message):
        schema(cell)


def test_two_parameters_cells_are_refused():
    code = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "a: int = 1"}
    with pytest.raises(WrongUse, match="2 cells tagged `parameters`, expected exactly one"):
        parse_schema({"cells": [code, code]}, "x.ipynb")


def test_a_comment_may_contain_anything_that_is_no_range():
    fields = schema('a: str = "#1..2: x"  # at 9..12 o\'clock: <b> & "quotes"')
    assert fields["a"].default == "#1..2: x"
    assert fields["a"].bounds == ()
    assert fields["a"].meaning == 'at 9..12 o\'clock: <b> & "quotes"'


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(plain_json)
def test_any_json_value_travels_unchanged_in_a_dict(value):
    fitted = check(flags={"x": value})["flags"]
    assert json.dumps(fitted, sort_keys=True) == json.dumps({"x": value}, sort_keys=True)
