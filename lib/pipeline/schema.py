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
from typing import cast

from lib.pipeline import WrongUse

__all__ = ["Field", "check_parameters", "code_cells", "nearest", "parse_schema", "read_notebook"]

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(
    rf"(?:(?P<low>{NUMBER})?\.\.(?P<high>{NUMBER})?|(?P<sign>[<>]=?)\s*(?P<bound>{NUMBER}))\s*:\s*"
)
SIGNS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
SIMPLE = {"bool": bool, "int": int, "str": str}


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter; ``bounds`` holds pairs such as (">=", 1.0)."""

    name: str
    kind: ast.expr
    default: object
    bounds: tuple[tuple[str, float], ...]
    meaning: str
    line: int

    @property
    def expected(self) -> str:
        limits = " and ".join(f"{sign} {bound:g}" for sign, bound in self.bounds)
        return ast.unparse(self.kind) + (f" {limits}" if limits else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name.

    >>> nearest("epoch", ["epochs", "seed"])
    "Did you mean 'epochs'?"
    """
    options = sorted(known)
    close = get_close_matches(name, options, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(options) or 'none'}."


def read_notebook(path: Path) -> dict[str, object]:
    """Read a notebook's JSON, with the source of each cell as one string."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
    except FileNotFoundError:
        names = [other.stem for other in path.parent.glob("*.ipynb")]
        raise WrongUse(f"{path.name}: no such notebook. {nearest(path.stem, names)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise WrongUse(f"{path.name}: not a notebook in nbformat 4 ({error})") from error
    return cast("dict[str, object]", notebook)


def code_cells(notebook: Mapping[str, object]) -> list[dict[str, object]]:
    """The code cells that contain something."""
    cells = cast("list[dict[str, object]]", notebook["cells"])
    return [cell for cell in cells if cell["cell_type"] == "code" and str(cell["source"]).strip()]


def is_parameters(cell: Mapping[str, object]) -> bool:
    return "parameters" in cast("dict[str, list[str]]", cell["metadata"]).get("tags", [])


def parse_schema(notebook: Mapping[str, object], source: str) -> dict[str, Field]:
    """Read the fields of the one cell tagged ``parameters``."""
    cells = [str(cell["source"]) for cell in code_cells(notebook) if is_parameters(cell)]
    if len(cells) != 1:
        raise WrongUse(f"{source}: {len(cells)} cells tagged `parameters`, expected exactly one")
    try:
        body = ast.parse(cells[0]).body
    except SyntaxError as error:
        raise WrongUse(f"{source}: parameters cell, line {error.lineno}: {error.msg}") from error
    tokens = tokenize.generate_tokens(io.StringIO(cells[0]).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    fields: dict[str, Field] = {}
    for statement in body:
        place = f"{source}: parameters cell, line {statement.lineno}"
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            raise WrongUse(f"{place}: {ast.unparse(statement)!r} is not `name: type = literal`")
        name = statement.target.id
        if name in fields:
            raise WrongUse(f"{place}: {name} is given twice; keep one line")
        try:
            value = ast.literal_eval(statement.value) if statement.value else None
        except ValueError:
            raise WrongUse(f"{place}: the default of {name} must be a literal") from None
        comment = comments.get(statement.end_lineno or 0) or comments.get(statement.lineno, "")
        bounds, meaning = parse_range(comment)
        field = Field(name, statement.annotation, value, bounds, meaning, statement.lineno)
        fields[name] = Field(name, field.kind, fit_value(field, value, place), bounds, meaning,
                             statement.lineno)  # fmt: skip
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
    """The value in its declared type, or an error that says what to write instead."""
    try:
        fitted = fit(value, field.kind)
    except ValueError as error:
        raise WrongUse(
            f"{place}: {field.name} = {value!r}: {error}; expected {field.expected}"
            + (f" ({field.meaning})" if field.meaning else "")
        ) from None
    numbers = fitted if isinstance(fitted, list) else [fitted]
    for number in numbers:
        for sign, bound in field.bounds:
            if isinstance(number, int | float) and not SIGNS[sign](number, bound):
                raise WrongUse(
                    f"{place}: {field.name} = {value!r} is out of range; "
                    f"expected {field.expected} ({field.meaning})"
                )
    return fitted


def fit(value: object, kind: ast.expr) -> object:
    """Check one value against an annotation; ints become floats where a float is declared."""
    match kind:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            try:
                return fit(value, left)
            except ValueError:
                return fit(value, right)
        case ast.Constant(value=None) if value is None:
            return None
        case ast.Name(id="float") if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):
                raise ValueError("not a finite number")
            return float(value)
        case ast.Name(id=("bool" | "int" | "str") as name) if type(value) is SIMPLE[name]:
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
            raise ValueError(f"not one of the choices. {nearest(str(value), map(str, allowed))}")
        case ast.Name(id=("bool" | "int" | "float" | "str" | "dict" | "list" as name)):
            found = type(value).__name__
            hint = f"write {int(value)}" if name == "int" and isinstance(value, float) and (
                value.is_integer()) else f"write a {name}"  # fmt: skip
            raise ValueError(f"is a {found}; {hint}")
        case ast.Subscript(value=ast.Name(id="list")):
            raise ValueError(f"is a {type(value).__name__}; write a list, [a, b]")
        case ast.Constant(value=None):
            raise ValueError(f"is a {type(value).__name__}; write null")
    raise ValueError(f"the type {ast.unparse(kind)} is not one that a parameter can have")


def fit_json(value: object) -> object:
    """Any JSON value with finite numbers and text keys."""
    if value is None or isinstance(value, bool | int | str):
        return value
    kind = {float: "float", list: "list", dict: "dict"}.get(type(value))
    if kind is None:
        raise ValueError(f"{value!r} is a {type(value).__name__}, which JSON does not have")
    return fit(value, ast.Name(kind))


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
