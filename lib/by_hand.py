"""A notebook run by hand, in JupyterLab: the profile's newest finished inputs, a place to write.

``LINGREC_PROFILE`` names another profile than the demo.
"""

import html
import os
import re
from collections.abc import Mapping
from typing import Any

from lib.pipeline import Blocked, WrongUse
from lib.pipeline.profile import Node, find_home, load_profile
from lib.pipeline.schema import nearest

__all__ = ["context", "readable", "told"]


def context(notebook: str, variables: Mapping[str, object]) -> dict[str, Any]:
    """A run by hand: the inputs of the node with the values most like these, outputs apart."""
    home = find_home()
    profile = load_profile(home, os.environ.get("LINGREC_PROFILE", "demo"))
    nodes = [node for node in profile.nodes.values() if node.notebook == notebook]
    if not nodes:
        known = {node.notebook for node in profile.nodes.values()}
        raise WrongUse(f"no node of {profile.name} runs {notebook!r}. {nearest(notebook, known)}")
    alike = [sum(1 if variables.get(name) == value else -1 for name, value in node.params.items())
             for node in nodes]  # fmt: skip
    node = nodes[alike.index(max(alike))]
    work = home.root / "data" / "scratch" / notebook
    return {
        "home": str(home.root), "profile": profile.name, "node": node.name,
        "notebook": notebook, "nonce": "", "work": str(work), "device": "",
        "inputs": inputs(profile.name, node), "parameters": node.params,
        "scratch": str(work / "checkpoints"), "progress": "",
    }  # fmt: skip


def told(given: Mapping[str, Any], parameters: Mapping[str, object]) -> str:
    """Whose inputs these are, and the values with which that node's page was made.

    >>> print(told({"node": "din", "profile": "demo", "parameters": {"batch": 8}}, {"batch": 9}))
    By hand, with the inputs of din in the profile demo, which differs in
      batch = 8
    <BLANKLINE>
    """
    whose = f"By hand, with the inputs of {given['node']} in the profile {given['profile']}"
    other = [f"  {name} = {value!r}\n" for name, value in given["parameters"].items()
             if value != parameters.get(name)]  # fmt: skip
    return f"{whose}, which differs in\n{''.join(other)}" if other else f"{whose}\n"


def inputs(profile: str, node: Node) -> dict[str, str]:
    """The newest finished inputs; one that is not there becomes the command that makes it."""
    home, found = find_home(), {}
    for name, reference in node.inputs.items():
        if reference.startswith("raw:"):
            found[name] = str(home.root / "data" / "raw" / reference.removeprefix("raw:"))
            continue
        upstream, _, sub = reference.partition("/")
        pointer = home.store / profile / upstream / "current"
        key = pointer.read_text(encoding="utf-8").strip() if pointer.exists() else ""
        folder = pointer.parent / key / "outputs" / sub
        if key and folder.exists():
            found[name] = str(folder)
        elif name not in node.optional:
            raise Blocked(
                f"input {name!r} is not made yet: python run_all.py {profile} --until {upstream}"
            )
    return found


def readable(frame: Any) -> str:
    """A polars frame as HTML for JupyterLab: text without quotes, on the left, and not squeezed.

    >>> import polars as pl
    >>> shown = readable(pl.DataFrame({"title": ["long " * 99], "rows of": ["hold-out"]}))
    >>> 'min-width:8ch">hold-out</td>' in shown, "&quot;" in shown  # what is cut has one quote
    (True, False)
    """

    def cell(found: re.Match[str]) -> str:
        width = min(28, len(html.unescape(found[1])))
        return f'<td style="text-align:left;min-width:{width}ch">{found[1]}</td>'

    kinds = iter(frame.dtypes)
    heads = re.sub("<th>", lambda _: f'<th style="text-align:{side(next(kinds, None))}">',
                   frame._repr_html_())  # fmt: skip
    return re.sub(r"<td>&quot;(.*?)(?:&quot;)?</td>", cell, heads, flags=re.DOTALL)


def side(kind: object) -> str:
    return "left" if str(kind) == "String" else "right"
