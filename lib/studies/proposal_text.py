"""A node as it will stand in a profile, and a profile as text with a reason beside each choice."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["PlannedNode", "profile_text"]

WORD = re.compile(r"[A-Za-z_][\w./-]*\Z", re.ASCII)
TAKEN = {"true", "false", "null", "yes", "no", "on", "off"}


@dataclass(frozen=True, kw_only=True)
class PlannedNode:
    """A node with the reasons for it.  ``work``: what its time grows with, in a unit of its
    notebook (see ``proposal_cost``); ``memory_gb``: at most."""

    name: str
    notebook: str
    why: str
    inputs: Mapping[str, str]
    params: Mapping[str, object] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)  # of parameters
    work: float = 0.0
    memory_gb: float = 1.0


def profile_text(
    about: str, head: Sequence[str], nodes: Sequence[PlannedNode], minutes: Mapping[str, float]
) -> str:
    """The YAML of a profile; ``minutes`` is the limit of each node."""
    lines = [f"about: {value(about)}", *(f"# {printable(line)}" for line in head), "nodes:"]
    for node in nodes:
        lines += [f"  # {printable(line)}" for line in wrap(node.why)]
        inputs = ", ".join(f"{key}: {value(place)}" for key, place in node.inputs.items())
        lines += [f"  {node.name}:", f"    notebook: {node.notebook}", f"    inputs: {{{inputs}}}"]
        lines += ["    params:"] if node.params else ["    params: {}"]
        for name, given in node.params.items():
            told = f"   # {printable(node.reasons[name])}" if name in node.reasons else ""
            lines.append(f"      {name}: {value(given)}{told}")
        limit = max(60, round(minutes.get(node.name, 60)))
        memory = f"memory_gb: {max(1, round(node.memory_gb))}"
        lines.append(f"    resources: {{{memory}, minutes: {limit}}}")
    return "\n".join(lines) + "\n"


def wrap(text: str, width: int = 94) -> list[str]:
    """Words in lines of at most ``width``."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def value(given: object) -> str:
    """A value in YAML's flow style; a text that could be read as anything else is quoted.

    >>> value({"a": [1, 2.0e-3], "b": "no", "c": None, "Größe": "x y"})
    '{a: [1, 0.002], b: "no", c: null, "Größe": "x y"}'
    """
    if isinstance(given, Mapping):
        return "{" + ", ".join(f"{value(key)}: {value(item)}" for key, item in given.items()) + "}"
    if isinstance(given, list | tuple):
        return "[" + ", ".join(value(item) for item in given) + "]"
    if isinstance(given, str) and WORD.match(given) and given.lower() not in TAKEN:
        return given
    return printable(json.dumps(given, ensure_ascii=False, allow_nan=False))


def printable(text: str) -> str:
    r"""Characters that YAML forbids, or that nobody would see, by their number.

    >>> print(printable("a\x7fb"))
    a\u007fb
    """
    return "".join(
        char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 1 << 16
        else f"\\U{ord(char):08x}" for char in text
    )  # fmt: skip
