"""Training the variants of one rung from plain parameters, and which of them goes on.

A recipe is a model's parameters, a plan, a loss and a feature step. A variant names what differs,
flat: a field of the plan, ``loss``, a setting of the feature step, ``max_len``,
``positive_fraction``, or else a model parameter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.clicks import Clicks
from lib.evaluate.gates import Decision
from lib.models.ladder import ClickModelKind, build_click_model, sizes_of
from lib.studies.click_view import ViewSettings, append_numbers, view_clicks
from lib.studies.clicks import LossSettings
from lib.studies.crossfit import Protocol, cross_validate
from lib.studies.judging import ask_gate, judge_rungs
from lib.studies.rungs import Rung, make_rung
from lib.train.plan import Group, Plan

__all__ = [
    "Recipe", "best_rung", "choose_batch", "choose_by_gate", "cost_table", "merge_helpful",
    "read_recipe", "resolve_fields", "slug", "train_recipe", "train_variants", "vary",
]  # fmt: skip

Report = Callable[..., None]
PLAN = {field.name for field in fields(Plan)}
VIEW = {field.name for field in fields(ViewSettings)}
LOSS = {field.name for field in fields(LossSettings)}
OWN = {"max_len", "positive_fraction"}  # of the recipe itself


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a rung's network depends on besides the data."""

    kind: ClickModelKind
    model: Mapping[str, Any]
    plan: Plan
    loss: LossSettings
    view: ViewSettings = ViewSettings()  # noqa: RUF009  # frozen
    max_len: int = 0
    new_below: int = 10
    positive_fraction: float | None = None  # of each batch; None: as the rows are

    def record(self) -> dict[str, Any]:
        """Plain values, as config.json keeps them."""
        return {
            "kind": self.kind, "model": dict(self.model), "plan": asdict(self.plan),
            "loss": asdict(self.loss), "view": asdict(self.view), "max_len": self.max_len,
            "new_below": self.new_below, "positive_fraction": self.positive_fraction,
        }  # fmt: skip


def read_recipe(record: Mapping[str, Any]) -> Recipe:
    """The recipe that a rung's config.json keeps."""
    plan = dict(record["plan"])
    plan["groups"] = tuple(Group(**group) for group in plan["groups"])
    return Recipe(
        kind=record["kind"],
        model=record["model"],
        plan=Plan(**plan),
        loss=LossSettings(**record["loss"]),
        view=ViewSettings(**{key: _tuples(value) for key, value in record["view"].items()}),
        max_len=record["max_len"],
        new_below=record["new_below"],
        positive_fraction=record["positive_fraction"],
    )


def vary(base: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with flat changes put where they belong; ``kind`` is another model."""
    plan = {key: value for key, value in changes.items() if key in PLAN}
    view = {key: _tuples(value) for key, value in changes.items() if key in VIEW}
    loss = {key: value for key, value in changes.items() if key in LOSS - {"kind"}}
    if "loss" in changes:
        loss["kind"] = changes["loss"]
    own = {key: value for key, value in changes.items() if key in OWN}
    known = plan.keys() | view.keys() | loss.keys() | own.keys() | {"loss", "kind"}
    model = {key: value for key, value in changes.items() if key not in known}
    return replace(
        base,
        kind=changes.get("kind", base.kind),
        model={**base.model, **model},
        plan=replace(base.plan, **plan),
        view=replace(base.view, **view),
        loss=replace(base.loss, **loss),
        **own,
    )


def train_variants(
    recipes: Mapping[str, Recipe],
    clicks: Clicks,
    protocol: Protocol,
    *,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Report | None = None,
    known: Sequence[tuple[Recipe, Rung]] = (),
) -> dict[str, Rung]:
    """One rung per recipe, by its name; each leaves its models in ``scratch/NAME``.

    ``known``: rungs of the same rows; an equal recipe would only repeat them, number by number.
    """
    rungs = {}
    for name, recipe in recipes.items():
        same = next((rung for other, rung in known if other == recipe), None)
        rungs[name] = train_recipe(
            name, recipe, clicks, protocol, device=device,
            scratch=None if scratch is None else scratch / slug(name), report=report,
        ) if same is None else replace(same, name=name)  # fmt: skip
    return rungs


def train_recipe(
    name: str,
    recipe: Recipe,
    clicks: Clicks,
    protocol: Protocol,
    *,
    device: str = "cpu",
    scratch: Path | None = None,
    report: Report | None = None,
    numbers: Mapping[str, npt.NDArray[np.floating]] | None = None,
) -> Rung:
    """Cross-validate one recipe; ``numbers`` are further columns of every row."""
    view = view_clicks(clicks, recipe.view)
    if numbers:
        view = append_numbers(view, numbers)
    sizes = sizes_of(view.layout, max_len=recipe.max_len)
    parameters = resolve_fields(recipe.model, view.layout.fields)
    folds = cross_validate(
        lambda: build_click_model(recipe.kind, sizes, parameters),
        view, protocol, recipe.plan, recipe.loss,
        max_len=recipe.max_len, positive_fraction=recipe.positive_fraction,
        device=device, scratch=scratch, report=report,
    )  # fmt: skip
    return make_rung(name, folds, view, protocol, new_below=recipe.new_below)


def resolve_fields(parameters: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Field names become column numbers, null parameters go; a name that is no field is refused."""
    found = {key: value for key, value in parameters.items() if value is not None}
    for key in ("target_field", "item_fields", "query_fields"):
        if key not in found:
            continue
        given = found[key] if isinstance(found[key], (list, tuple)) else [found[key]]
        for name in given:
            if name not in names:
                raise ValueError(f"{key}={name!r} is no field of this dataset: {', '.join(names)}")
        columns = tuple(list(names).index(name) for name in given)
        found[key] = columns[0] if key == "target_field" else columns
    return found


def best_rung(rungs: Mapping[str, Rung], *, draws: int, seed: int) -> str:
    """The name of the highest Score out of fold, which is where choices are made."""
    judged = judge_rungs(list(rungs.values()), draws=draws, seed=seed)
    scores = {j.rung: j.values["score"] for j in judged
              if j.part == "out of fold" and j.segment == "all"}  # fmt: skip
    return max(rungs, key=lambda name: scores[rungs[name].name])


def choose_by_gate(
    rungs: Mapping[str, Rung], rule: str, *, draws: int, seed: int
) -> tuple[str, dict[str, Decision]]:
    """From the first variant on, each later one replaces the one in use only if the gate says so.

    More variants then mean no more luck: a tie leaves the first, which is the plain one.
    """
    names = list(rungs)
    chosen, decisions = names[0], {}
    for name in names[1:]:
        asked = f"{name} instead of {chosen}"
        decisions[asked] = ask_gate(asked, rule, rungs[chosen], rungs[name], draws=draws, seed=seed)
        if decisions[asked].answer == "adopted":
            chosen = name
    return chosen, decisions


def choose_batch(
    rungs: Mapping[int, Rung], rule: str, *, draws: int, seed: int
) -> tuple[int, dict[str, Decision]]:
    """The largest batch that no smaller one beats by the rule: large batches come first."""
    sizes = sorted(rungs, reverse=True)
    chosen, decisions = sizes[0], {}
    for smaller in sizes[1:]:
        name = f"batch {chosen:,} → {smaller:,}"
        decision = ask_gate(name, rule, rungs[chosen], rungs[smaller], draws=draws, seed=seed)
        decisions[name] = decision
        if decision.answer == "adopted":
            chosen = smaller
    return chosen, decisions


def merge_helpful(
    rungs: Mapping[str, Rung],
    changes: Mapping[str, Mapping[str, Any]],
    base: str,
    *,
    draws: int,
    seed: int,
) -> tuple[list[str], dict[str, Any]]:
    """Names of the changes whose Score out of fold is above the base's, and all of them as one.

    Where two change the same setting, the better one stays.
    """
    judged = judge_rungs(list(rungs.values()), draws=draws, seed=seed)
    scores = {j.rung: j.values["score"] for j in judged
              if j.part == "out of fold" and j.segment == "all"}  # fmt: skip
    helpful = sorted((n for n in changes if scores[n] > scores[base]), key=scores.__getitem__)
    merged: dict[str, Any] = {}
    for name in helpful:
        merged |= changes[name]
    return helpful, merged


def cost_table(rungs: Sequence[Rung]) -> pl.DataFrame:
    """What each rung cost."""
    return pl.DataFrame(
        [
            {"rung": rung.name, "parameters": rung.parameters, "seconds": round(rung.seconds, 2),
             "epochs or rounds": ", ".join(map(str, rung.epochs))}
            for rung in rungs
        ]
    )  # fmt: skip


def slug(name: str) -> str:
    """A folder's name of a rung's name."""
    return "".join(c if c.isalnum() else "-" for c in name)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(part) for part in value)
    return value
