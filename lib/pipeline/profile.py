"""A profile is a graph as data: ``params/<profile>.yaml`` names nodes, inputs and parameters.

YAML is read strictly: duplicate keys, anchors and merges are errors, ``1e-4`` is a float, ``no`` is
a word, and each value remembers its line. An input that ends in ``?`` may be missing: a node that
compares others runs without those that failed.
"""

import os
import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import cast

import yaml

from lib.pipeline import WrongUse
from lib.pipeline.schema import nearest

__all__ = ["CODE_ROOT", "Home", "Node", "Profile", "find_home", "load_profile", "read_yaml"]

CODE_ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
INTEGER = re.compile(r"[-+]?(0|[1-9]\d*)\Z", re.ASCII)
FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?\Z", re.ASCII)
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
RESOURCES = {"cpu": 1.0, "memory_gb": 1.0, "gpu": 0.0, "minutes": 120.0}
Lines = dict[tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one project; everything the runner touches lies below ``root``."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "data" / "store"

    @property
    def lock(self) -> Path:
        own = self.root / "requirements.lock"
        return own if own.exists() else CODE_ROOT / "requirements.lock"

    def notebook(self, name: str) -> Path:
        return self.root / "notebooks" / f"{name}.ipynb"


@dataclass(frozen=True, slots=True)
class Node:
    """A notebook with parameters and named inputs."""

    name: str
    notebook: str
    inputs: dict[str, str]
    params: dict[str, object]
    resources: dict[str, float]
    lines: Lines
    source: str
    optional: frozenset[str] = frozenset()  # names of inputs that may be missing

    @property
    def needs(self) -> set[str]:
        return {i.split("/")[0] for i in self.inputs.values() if not i.startswith("raw:")}

    @property
    def requires(self) -> set[str]:
        """The nodes without which this one cannot run."""
        return {i.split("/")[0] for name, i in self.inputs.items()
                if not i.startswith("raw:") and name not in self.optional}  # fmt: skip

    def place(self, *path: str) -> str:
        """Where in the profile something stands, for messages."""
        own = ("nodes", self.name)
        line = self.lines.get((*own, *path)) or self.lines[own]
        return f"{self.source}, line {line}: node {self.name}"


@dataclass(frozen=True, slots=True)
class Profile:
    """All nodes of one file, and what has to be fetched for them."""

    name: str
    about: str
    nodes: dict[str, Node]
    fetch: object = None  # what to download, read by lib.data.fetch
    manual: object = None  # what a person has to get

    def order(self) -> list[str]:
        """Every node after what it needs."""
        graph = {name: node.needs for name, node in self.nodes.items()}
        return list(TopologicalSorter(graph).static_order())

    def upstream(self, names: set[str]) -> set[str]:
        """The nodes themselves and all they stand on."""
        found = set(names)
        while more := {need for name in found for need in self.nodes[name].needs} - found:
            found |= more
        return found

    def downstream(self, names: set[str]) -> set[str]:
        """The nodes themselves and all that stands on them."""
        return {name for name in self.nodes if self.upstream({name}) & names}


def find_home() -> Home:
    """The project of this library, or the folder named by LINGREC_HOME."""
    return Home(Path(os.environ.get("LINGREC_HOME") or CODE_ROOT).resolve())


def read_yaml(text: str, source: str) -> tuple[object, Lines]:
    """The value of a YAML document and the line of each of its keys.

    >>> read_yaml("lr: 1e-4", "x.yaml")[0]
    {'lr': 0.0001}
    """
    lines: Lines = {}
    seen: set[int] = set()

    def build(node: yaml.Node, path: tuple[str, ...]) -> object:
        line = node.start_mark.line + 1
        lines.setdefault(path, line)
        if id(node) in seen:
            raise WrongUse(f"{source}, line {line}: an anchor is used; write the value out")
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.style else plain(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*path, str(n))) for n, item in enumerate(node.value)]
        result: dict[str, object] = {}
        for key_node, value_node in cast("yaml.MappingNode", node).value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key, str) or key == "<<":
                raise WrongUse(f"{source}, line {line}: keys are plain words; write it out")
            if key in result:
                raise WrongUse(f"{source}, line {line}: {key!r} is given twice; keep one")
            lines[*path, key] = line
            result[key] = build(value_node, (*path, key))
        return result

    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise WrongUse(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    return (None if root is None else build(root, ())), lines


def plain(text: str) -> object:
    """An unquoted YAML word as JSON would read it; all else (012, no, 2024-01-01) stays text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if INTEGER.match(text):
        return int(text)
    return float(text) if FLOAT.match(text) else text


def load_profile(home: Home, name: str) -> Profile:
    """Read and check one profile; parameters are checked when a node is examined."""
    path = home.root / "params" / f"{name}.yaml"
    source = f"params/{path.name}"
    if not path.is_file():
        names = [other.stem for other in path.parent.glob("*.yaml")]
        raise WrongUse(f"{source}: no such profile. {nearest(name, names)}")
    raw, lines = read_yaml(path.read_text(encoding="utf-8"), source)
    top = check_keys(raw, {"about", "nodes", "fetch", "manual"}, source)
    specs = check_keys(top.get("nodes"), None, f"{source}: nodes")
    nodes = {node: build_node(node, spec, lines, source) for node, spec in specs.items()}
    for node in nodes.values():
        for need in sorted(node.needs - nodes.keys()):
            place = node.place("inputs")
            raise WrongUse(f"{place}: input {need!r} is no node. {nearest(need, nodes)}")
    profile = Profile(name, str(top.get("about") or ""), nodes, top.get("fetch"), top.get("manual"))
    try:
        profile.order()
    except CycleError as error:
        raise WrongUse(f"{source}: nodes need each other: {' <- '.join(error.args[1])}") from error
    return profile


def build_node(name: str, spec: object, lines: Lines, source: str) -> Node:
    """Check the shape of one node."""
    place = f"{source}, line {lines['nodes', name]}: node {name}"
    parts = check_keys(spec, {"notebook", "inputs", "params", "resources"}, place)
    notebook = parts.get("notebook")
    inputs, params, given = (check_keys(parts.get(key) or {}, known, f"{place}: {key}")
                             for key, known in (("inputs", None), ("params", None),
                                                ("resources", set(RESOURCES))))  # fmt: skip
    wrong = ""
    if not NAME.match(name):
        wrong = "a node's name is letters, digits and _; rename it"
    elif not isinstance(notebook, str):
        wrong = "write `notebook: NN_verb_object`"
    for key, value in inputs.items():
        if not isinstance(value, str) or ".." in value.split("/") or value.startswith("/"):
            wrong = f"input {key}: {value!r} is not `node`, `node/path` or `raw:path`"
    for key, amount in given.items():
        if not isinstance(amount, int | float) or isinstance(amount, bool) or amount < 0:
            wrong = f"resources: {key} = {amount!r}; expected a number, 0 or more"
    if wrong:
        raise WrongUse(f"{place}: {wrong}")
    references = {key: str(value).removesuffix("?") for key, value in inputs.items()}
    optional = frozenset(key for key in inputs if references[key] != inputs[key])
    return Node(name, cast(str, notebook), references, params,
                RESOURCES | cast("dict[str, float]", given), lines, source, optional)  # fmt: skip


def check_keys(value: object, known: set[str] | None, place: str) -> dict[str, object]:
    """A mapping whose keys are all known."""
    if not isinstance(value, dict):
        raise WrongUse(f"{place}: expected keys with values, found {value!r}")
    for key in value:
        if known is not None and key not in known:
            raise WrongUse(f"{place}: unknown key {key!r}. {nearest(key, known)}")
    return value
