"""The parameters cell of a notebook is its schema: names, types, ranges and defaults in one place.

    epochs: int = 3              # 1..1000: passes over the training rows
    learning_rate: float = 1e-3  # >0: Adam's step

Runner and notebook read the same cell, so the two cannot disagree. Only JSON types travel.
"""

import ast
import io
import json
import math
import operator
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lib.pipeline import WrongUse

__all__ = ["Field", "Notebook", "check_parameters", "code_cells", "nearest", "parse_schema",
           "read_notebook"]  # fmt: skip

Notebook = dict[str, Any]
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(
    rf"(?:(?P<low>{NUMBER})?\.\.(?P<high>{NUMBER})?|(?P<sign>[<>]=?)\s*(?P<bound>{NUMBER}))\s*:\s*"
)
SIGNS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
JSON_TYPES = ("bool", "int", "float", "str", "list", "dict")


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter; ``bounds`` holds pairs such as (">=", 1.0)."""

    name: str
    kind: ast.expr
    default: object
    bounds: tuple[tuple[str, float], ...]
    meaning: str

    @property
    def expected(self) -> str:
        limits = " and ".join(f"{sign} {bound:g}" for sign, bound in self.bounds)
        told = f" ({self.meaning})" if self.meaning else ""
        return f"expected {ast.unparse(self.kind)} {limits}".rstrip() + told


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name.

    >>> nearest("epoch", ["epochs", "seed"])
    "Did you mean 'epochs'?"
    """
    options = sorted(known)
    close = get_close_matches(name, options, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(options) or 'none'}."


def read_notebook(path: Path) -> Notebook:
    """Read a notebook's JSON, with the source of each cell as one string."""
    try:
        notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
    except FileNotFoundError:
        names = [other.stem for other in path.parent.glob("*.ipynb")]
        raise WrongUse(f"{path.name}: no such notebook. {nearest(path.stem, names)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise WrongUse(f"{path.name}: not a notebook in nbformat 4 ({error})") from error
    return notebook


def code_cells(notebook: Notebook) -> list[Notebook]:
    """The code cells that contain something."""
    return [c for c in notebook["cells"] if c["cell_type"] == "code" and c["source"].strip()]


def is_parameters(cell: Notebook) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def parse_schema(notebook: Notebook, source: str) -> dict[str, Field]:
    """Read the fields of the one cell tagged ``parameters``."""
    cells = [cell["source"] for cell in code_cells(notebook) if is_parameters(cell)]
    if len(cells) != 1:
        raise WrongUse(f"{source}: {len(cells)} cells tagged `parameters`, expected exactly one")
    try:
        body = ast.parse(cells[0]).body
    except SyntaxError as error:
        raise WrongUse(f"{source}: parameters cell, line {error.lineno}: {error.msg}") from error
    tokens = tokenize.generate_tokens(io.StringIO(cells[0]).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    fields: dict[str, Field] = {}
    for line in body:
        place = f"{source}: parameters cell, line {line.lineno}"
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            raise WrongUse(f"{place}: {ast.unparse(line)!r} is not `name: type = literal`")
        name = line.target.id
        if name in fields:
            raise WrongUse(f"{place}: {name} is given twice; keep one line")
        try:
            value = ast.literal_eval(line.value) if line.value else None
        except ValueError:
            raise WrongUse(f"{place}: the default of {name} must be a literal") from None
        comment = comments.get(line.end_lineno or 0) or comments.get(line.lineno, "")
        field = Field(name, line.annotation, None, *parse_range(comment))
        default = fit_value(field, value, place)
        fields[name] = Field(name, field.kind, default, field.bounds, field.meaning)
    return fields


def parse_range(comment: str) -> tuple[tuple[tuple[str, float], ...], str]:
    """Split a comment into its bounds and its meaning.

    >>> parse_range("1..1000: passes over the training rows")
    ((('>=', 1.0), ('<=', 1000.0)), 'passes over the training rows')
    """
    match = RANGE.match(comment)
    if match is None:
        return (), comment
    pairs = ((">=", match["low"]), ("<=", match["high"]), (match["sign"], match["bound"]))
    bounds = tuple((sign, float(number)) for sign, number in pairs if number is not None)
    return bounds, comment[match.end() :]


def fit_value(field: Field, value: object, place: str) -> object:
    """The value in its declared type and range, or an error that says what to write instead."""
    try:
        fitted = fit(value, field.kind)
    except ValueError as error:
        told = f"{place}: {field.name} = {value!r}: {error}; {field.expected}"
        raise WrongUse(told) from None
    found = fitted if isinstance(fitted, list) else [fitted]
    for number in [item for item in found if isinstance(item, int | float)]:
        if not all(SIGNS[sign](number, bound) for sign, bound in field.bounds):
            told = f"{place}: {field.name} = {value!r} is out of range; {field.expected}"
            raise WrongUse(told)
    return fitted


def fit(value: object, kind: ast.expr) -> object:
    """Check one value against an annotation; ints become floats where a float is declared."""
    match kind:
        case ast.BinOp(left=left, right=ast.Constant(value=None)) if value is not None:
            return fit(value, left)  # so that the hint is what to write, not null
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            try:
                return fit(value, left)
            except ValueError:
                return fit(value, right)
        case ast.Constant(value=None) if value is None:
            return None
        case ast.Name(id="float") if type(value) in {int, float}:
            if not math.isfinite(value):  # type: ignore[arg-type]
                raise ValueError("not a finite number")
            return float(value)  # type: ignore[arg-type]
        case ast.Name(id=("bool" | "int" | "str") as name) if type(value).__name__ == name:
            return value
        case ast.Name(id="dict") if isinstance(value, dict):
            return {fit(key, ast.Name("str")): fit_json(item) for key, item in value.items()}
        case ast.Name(id="list") if isinstance(value, list):
            return [fit_json(item) for item in value]
        case ast.Subscript(value=ast.Name(id="list"), slice=item) if isinstance(value, list):
            return [fit(each, item) for each in value]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            allowed = ast.literal_eval(choices)
            allowed = allowed if isinstance(allowed, tuple) else (allowed,)
            if value in allowed:
                return value
            close = nearest(str(value), map(str, allowed)).rstrip(".")
            raise ValueError(f"not one of the choices. {close}")
    wanted = ast.unparse(kind).partition("[")[0]
    if wanted not in {*JSON_TYPES, "None"}:
        raise ValueError(f"the type {wanted} is not one that a parameter can have")
    hint = {"list": "a list, [a, b]", "int": "an int", "None": "null"}.get(wanted, f"a {wanted}")
    if wanted == "int" and isinstance(value, float) and value.is_integer():
        hint = str(int(value))
    raise ValueError(f"is a {type(value).__name__}; write {hint}")


def fit_json(value: object) -> object:
    """Any JSON value with finite numbers and text keys."""
    name = type(value).__name__
    if value is not None and name not in JSON_TYPES:
        raise ValueError(f"{value!r} is a {name}, which JSON does not have")
    return value if value is None else fit(value, ast.Name(name))


def check_parameters(
    schema: Mapping[str, Field], given: Mapping[str, object], place: Callable[[str], str]
) -> dict[str, object]:
    """The complete parameters: defaults overridden by what is given, each checked."""
    for name in given:
        if name not in schema:
            raise WrongUse(f"{place(name)}: unknown parameter {name!r}. {nearest(name, schema)}")
    return {
        name: fit_value(field, given[name], place(name)) if name in given else field.default
        for name, field in schema.items()
    }
