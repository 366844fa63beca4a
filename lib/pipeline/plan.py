"""What to run, in which order, and why: pure functions that read the store and change nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from lib.pipeline import Blocked, WrongUse
from lib.pipeline.keys import Hashes, component_hashes, digest
from lib.pipeline.profile import Home, Node, Profile
from lib.pipeline.schema import Notebook, check_parameters, nearest, parse_schema, read_notebook
from lib.pipeline.store import Store

__all__ = ["Input", "State", "Step", "examine", "node_parameters", "plan", "select", "some"]

State = Literal["done", "run", "maybe", "corrupt", "blocked"]


@dataclass(frozen=True, slots=True)
class Input:
    """One named input of a node: where it is and what is in it."""

    node: str
    key: str
    path: Path
    hash: str


@dataclass(frozen=True, slots=True)
class Step:
    """The verdict on one node; ``key`` is empty while an input is not known."""

    node: str
    state: State
    reasons: tuple[str, ...]
    key: str = ""
    parts: Mapping[str, object] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)


def resolve_inputs(home: Home, store: Store, node: Node, hashes: Hashes) -> dict[str, Input]:
    """The inputs of a node from the current results.

    An optional one is left out where it is missing, corrupt, or failed when it ran last.
    """
    inputs = {}
    for name, reference in node.inputs.items():
        may_miss = name in node.optional
        if may_miss and store.failure(reference.partition("/")[0]) is not None:
            continue
        try:
            inputs[name] = resolve_input(home, store, node, name, hashes)
        except Blocked:
            if not may_miss:
                raise
    return inputs


def resolve_input(home: Home, store: Store, node: Node, name: str, hashes: Hashes) -> Input:
    """One input of a node from the current results, each file checked against its manifest."""
    source, _, sub = node.inputs[name].partition("/")
    if source.startswith("raw:"):
        raw = "data/raw/" + node.inputs[name].removeprefix("raw:")
        if not (home.root / raw).exists():
            raise Blocked(f"{node.place('inputs', name)}: {raw} is not there; put it there or try "
                          f"`run_all.py fetch {store.profile}`")  # fmt: skip
        return Input("", "", home.root / raw, hashes.tree(home.root / raw))
    result = store.current(source)
    remedy = f"run `run_all.py {store.profile} --until {source}`"
    if result is None:
        raise Blocked(f"needs {source}, which has no finished result; {remedy}")
    if damage := store.damage(result, hashes):
        raise Blocked(f"needs {source}, whose result is corrupt: {damage[0]}; {remedy}")
    found = result.output_hash(sub)
    if found is None:
        made = [f.removeprefix("outputs/") for f in result.manifest["files"] if "outputs/" in f]
        told = f"{node.place('inputs', name)}: {source} makes no {sub!r}. {nearest(sub, made)}"
        raise WrongUse(told)
    return Input(source, result.key, result.output(sub), found)


def node_parameters(home: Home, node: Node) -> tuple[Notebook, dict[str, object]]:
    """The notebook of a node, and its parameters checked against the notebook's schema."""
    notebook = read_notebook(home.notebook(node.notebook))
    schema = parse_schema(notebook, f"{node.notebook}.ipynb")
    return notebook, check_parameters(schema, node.params, partial(node.place, "params"))


def examine(
    home: Home, profile: Profile, name: str, hashes: Hashes, *, force: bool = False
) -> Step:
    """The verdict on one node, given the current results of the nodes that it needs."""
    node, store = profile.nodes[name], Store(home, profile.name)
    notebook, parameters = node_parameters(home, node)
    try:
        inputs = resolve_inputs(home, store, node, hashes)
    except Blocked as error:
        return Step(name, "blocked", (str(error),), parameters=parameters)
    known = {key: value.hash for key, value in inputs.items()}
    parts = component_hashes(home, node, notebook, parameters, known, hashes)
    key = digest(parts)
    state, reasons = verdict(store, name, key, parts, hashes)
    if force:
        state, reasons = "run", ("forced",)
    return Step(name, state, reasons, key, parts, parameters, inputs)


def verdict(
    store: Store, name: str, key: str, parts: Mapping[str, object], hashes: Hashes
) -> tuple[State, tuple[str, ...]]:
    """Whether the result with this key is there and whole; if not, what changed."""
    current, result = store.current(name), store.result(name, key)
    if result is not None:
        if damage := store.damage(result, hashes):
            return "corrupt", tuple(damage)
        same = current is not None and current.key == result.key
        return "done", () if same else ("an earlier result fits again",)
    if current is None:
        return "run", ("failed last time" if store.failure(name) else "never finished",)
    return "run", changes(current.parts, parts) or ("its result is gone",)


def changes(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    """What differs between two keys, part by part.

    >>> changes({"param.lr": 0.1, "code": "a"}, {"param.lr": 0.2, "code": "b"})
    ('param.lr 0.1 → 0.2', 'code changed')
    """
    told, kinds = list[str](), dict[str, list[str]]()
    for part in sorted(old.keys() | new.keys()):
        if part not in old or part not in new:
            kinds.setdefault("is new" if part in new else "is no longer used", []).append(part)
        elif old[part] != new[part] and part.startswith(("param.", "python", "device", "seed")):
            told.append(f"{part} {old[part]} → {new[part]}")
        elif old[part] != new[part]:
            kinds.setdefault("changed", []).append(part)
    return (*told, *(f"{some(parts)} {what}" for what, parts in kinds.items()))


def some(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """The first few of many.

    >>> some("abcde")
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def select(profile: Profile, only: set[str], start: set[str], until: set[str]) -> list[str]:
    """The chosen nodes in running order."""
    for name in only | start | until:
        if name not in profile.nodes:
            raise WrongUse(f"no node {name!r} in {profile.name}. {nearest(name, profile.nodes)}")
    chosen = set(only or profile.nodes)
    chosen &= profile.downstream(start) if start else chosen
    chosen &= profile.upstream(until) if until else chosen
    return [name for name in profile.order() if name in chosen]


def plan(
    home: Home, profile: Profile, chosen: list[str], hashes: Hashes, *,
    force: bool = False, lenient: bool = False,
) -> dict[str, Step]:  # fmt: skip
    """The verdict on all chosen nodes, as far as it can be known before anything runs.

    ``lenient`` makes a node that is described wrongly blocked instead of ending everything.
    """
    steps: dict[str, Step] = {}
    for name in chosen:
        try:
            step = examine(home, profile, name, hashes, force=force)
        except WrongUse as error:
            if not lenient:
                raise
            step = Step(name, "blocked", (str(error),))
        uses = sorted(profile.nodes[name].needs)
        needs = {need: steps[need].state for need in uses if need in steps}
        required = profile.nodes[name].requires
        stuck = [need for need in needs if needs[need] == "blocked" and need in required]
        moving = [need for need, state in needs.items() if state not in {"done", "blocked"}]
        if stuck:
            step = Step(name, "blocked", (f"needs {stuck[0]}, which is blocked",))
        elif moving and step.state != "run" and "data/raw/" not in "".join(step.reasons):
            waits = (f"waits for {', '.join(moving)}",)
            step = replace(step, state="maybe" if step.key else "run", reasons=waits)
        steps[name] = step
    return steps
