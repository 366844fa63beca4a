"""Faults of what a person writes or has not fetched: parameters, the network."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tools.faults.trial import Expect, Fault, Pair, Trial

__all__ = ["NETWORK", "PARAMETERS"]

PLACE = {"the line": r"params/smoke\.yaml, line \d+"}
ABSENT = "not_fetched"


def run_only(pair: Pair, expect: Expect) -> Trial:
    return Trial(pair.only(), expect)


@contextmanager
def unknown_name(pair: Pair) -> Iterator[Trial]:
    """A parameter with a letter too many."""
    name = f"{pair.dice.choice(sorted(pair.case.schema))}x"
    says = {**PLACE, "the name": f"unknown parameter {name!r}", "a hint": "Did you mean|Known:"}

    def change(node: dict[str, Any]) -> None:
        node["params"] = node.get("params", {}) | {name: 1}

    with pair.space.changed_profile(pair.node, change):
        yield run_only(pair, Expect(2, says))


@contextmanager
def wrong_type(pair: Pair) -> Iterator[Trial]:
    """An object where the notebook wants something else."""
    name = pair.dice.choice(
        [n for n, f in pair.case.schema.items() if not isinstance(f.default, dict)]
    )
    says = {**PLACE, "the name": rf"{name} = \{{", "the type": r"expected \w+"}

    def change(node: dict[str, Any]) -> None:
        node["params"] = node.get("params", {}) | {name: {"much": 1}}

    with pair.space.changed_profile(pair.node, change):
        yield run_only(pair, Expect(2, says))


@contextmanager
def out_of_range(pair: Pair) -> Iterator[Trial]:
    """A number beyond the bound that stands in the notebook."""
    bounded = sorted(name for name, field in pair.case.schema.items() if field.bounds)
    name = pair.dice.choice(bounded)
    sign, bound = pair.case.schema[name].bounds[0]
    value: float | int | list[object] = int(bound) - 1 if sign.startswith(">") else int(bound) + 1
    if isinstance(pair.case.schema[name].default, list):
        value = [value]
    says = {**PLACE, "the name": f"{name} = ", "the range": "is out of range; expected"}

    def change(node: dict[str, Any]) -> None:
        node["params"] = node.get("params", {}) | {name: value}

    with pair.space.changed_profile(pair.node, change):
        yield run_only(pair, Expect(2, says))


@contextmanager
def given_twice(pair: Pair) -> Iterator[Trial]:
    """A parameter written twice, which YAML itself would let pass."""
    name = pair.dice.choice(sorted(pair.case.schema))
    value = json.dumps(pair.case.schema[name].default)
    path = pair.space.root / "params" / "smoke.yaml"

    def change(node: dict[str, Any]) -> None:
        node["params"] = {name: "once"}

    with pair.space.changed_profile(pair.node, change):
        text = path.read_text("utf-8").replace(f'"{name}": "once"', f"{name}: {value}, {name}: {value}")  # fmt: skip  # noqa: E501
        path.write_text(text, "utf-8")
        yield run_only(pair, Expect(2, {**PLACE, "the name": f"{name!r} is given twice; keep one"}))


PARAMETERS = Fault(
    "wrong parameters", "an unknown name, a wrong type, a number out of range, a key given twice",
    "refused before anything starts, exit 2, with file, line, name and what is expected",
    (unknown_name, wrong_type, out_of_range, given_twice),
)  # fmt: skip


@contextmanager
def not_fetched(pair: Pair) -> Iterator[Trial]:
    """An input that should have been fetched into data/raw."""
    name = pair.dice.choice(sorted(pair.case.inputs) or ["data"])

    def change(node: dict[str, Any]) -> None:
        node["inputs"] = node.get("inputs", {}) | {name: f"raw:{ABSENT}"}

    says = {"the input": rf"data/raw/{ABSENT} is not there", "the line": r"smoke\.yaml, line \d+",
            "the remedy": r"put it there or try `run_all\.py fetch smoke`"}  # fmt: skip
    with pair.space.changed_profile(pair.node, change):
        yield run_only(pair, Expect(3, says))


@contextmanager
def no_hub(pair: Pair) -> Iterator[Trial]:
    """``fetch`` without a network."""
    repo = pair.dice.choice(["someone/a-dataset", "someone/a-model"])
    wish = {"repo": repo, "kind": repo.rpartition("-")[2], "revision": "0" * 40, "to": ABSENT,
            "files": [{"path": "file.bin"}]}  # fmt: skip
    says = {"the file": f"{repo}@0+: file.bin", "the cause": "cannot be reached",
            "the remedy": "Check the network; fetch again"}  # fmt: skip
    with pair.space.changed_profile(pair.node, lambda _: None, fetch=[wish]):
        yield Trial(("fetch", "smoke"), Expect(1, says))


NETWORK = Fault(
    "no network", "an input was not fetched into data/raw; then `fetch` reaches no hub. "
    "All runs of the matrix have no network",
    "blocked, exit 3, what is missing and `fetch`; then exit 1, which hub and to fetch again",
    (not_fetched, no_hub),
)  # fmt: skip
