"""The nodes of a click report, sized to the log: few and small for few rows, all where they fit."""

from collections.abc import Sequence

from lib.studies.proposal_click_models import (
    FOLDS,
    LARGE,
    SMALL,
    Size,
    dare,
    dcnv2,
    deepfm,
    din,
    ft_transformer,
    size_of,
    xdeepfm,
)
from lib.studies.proposal_clicks import ClickLook
from lib.studies.proposal_convert import HOLDOUT, Delivery, field_names
from lib.studies.proposal_text import PlannedNode

__all__ = ["plan_clicks"]

FT_ROWS = (20_000, 500_000)  # attention between fields pays from here, and takes hours beyond


def plan_clicks(look: ClickLook, delivery: Delivery) -> list[PlannedNode]:
    """Preparation, the cheap rows, the models that make sense at this size, and the comparison."""
    size = size_of(look)
    sequence = look.named("sequence")[:1]
    nodes = [prepare_sequences(look, delivery, size) if sequence else prepare(look, delivery, size)]
    nodes += [baselines(size), gbdt(size)]
    previous, members = "gbdt", ["gbdt"]

    def add(node: PlannedNode) -> None:
        nodes.append(node)
        members.append(node.name)

    add(deepfm(size))
    if not size.is_small:
        add(dcnv2(size))
        previous = "dcnv2"
        add(xdeepfm(size))
        if FT_ROWS[0] <= size.rows <= FT_ROWS[1]:
            add(ft_transformer(size))
    if sequence:
        add(din(look, size, previous))
        add(dare(look, size, previous))
    nodes += [ensemble(members, size), ladder(members, size)]
    return nodes


def prepare(look: ClickLook, delivery: Delivery, size: Size) -> PlannedNode:
    names = field_names(look)
    params: dict[str, object] = {
        "source": "table",
        "fields": [names[name] for name in look.named("category")] + list(look.clock),
        "numeric": [names[name] for name in look.named("number")],
        "label": names[look.label.name],
        "group": names[look.user] if look.user else "",
        "separator": delivery.separator,
        "min_count": 1 if size.rows < SMALL else 2,
    }
    reasons = {
        "fields": "a value is a word here, numbers too: 01 and 1 are two",
        "numeric": "missing ones become the training median, all are standardised",
        "label": look.label.reason,
        "group": "AUC within each of these, too" if look.user else "no user is known",
        "min_count": "few rows: every value keeps its own id" if size.rows < SMALL
        else "values met once in training share one id",
    }  # fmt: skip
    return PlannedNode(
        name="clicks", notebook="11_prepare_avazu", inputs={"raw": f"raw:{delivery.folder}"},
        why=f"The log as shards. Split: {look.why_split}.", params=params, reasons=reasons,
        work=(size.rows + size.judged) * (size.fields + size.numbers), memory_gb=1.0,
    )  # fmt: skip


def prepare_sequences(look: ClickLook, delivery: Delivery, size: Size) -> PlannedNode:
    names = field_names(look)
    fields = [names[name] for name in look.named("category")] + list(look.clock)
    group = names[look.user or look.item] if look.user or look.item else fields[0]
    params: dict[str, object] = {
        "categorical": fields,
        "numeric": [names[name] for name in look.named("number")],
        "names": {"label": names[look.label.name], "row_id": "ID", "day": HOLDOUT},
        "sequence": names[look.named("sequence")[0]],
        "min_count": 1 if size.rows < SMALL else 2,
        "covisits": [],
        "holdout_day": "held out",
        "fold_method": "stratified",
        "n_splits": FOLDS,
        "group_keys": [group],
    }
    reasons = {
        "names": look.label.reason, "sequence": "ids joined by commas, taken as oldest first",
        "covisits": "they need events and fields in one id space, which is not known here",
        "holdout_day": f"valid and test rows together; {look.why_split}",
        "fold_method": "as many clicks in each fold",
    }  # fmt: skip
    return PlannedNode(
        name="clicks", notebook="12_prepare_clicklog", inputs={"raw": f"raw:{delivery.folder}"},
        why="The log and its histories as shards, with folds of the training rows.",
        params=params, reasons=reasons,
        work=(size.rows + size.judged) * (size.fields + size.numbers + 40),
        memory_gb=1.0 + size.rows / 1e6,
    )  # fmt: skip


def baselines(size: Size) -> PlannedNode:
    ridges = [1.0, 3.0, 10.0, 30.0] if size.rows < LARGE else [3.0, 30.0]
    rows = min(size.rows, 2_000_000)
    return PlannedNode(
        name="baselines", notebook="14_measure_click_baselines", inputs={"clicks": "clicks/clicks"},
        why="A constant and logistic regression: what a network has to beat.",
        params={"ridges": ridges, "max_rows": 2_000_000 if size.rows > 2_000_000 else 0},
        reasons={"ridges": "the rows that choose decide", "max_rows": "0 takes all"},
        work=rows * (size.fields + size.numbers) * len(ridges),
        memory_gb=1 + rows * 4e-7 * size.fields,
    )  # fmt: skip


def gbdt(size: Size) -> PlannedNode:
    rounds, leaves = (200, 8) if size.is_small else (600, 31) if size.rows < LARGE else (1500, 63)
    least = max(5, min(100, size.rows // 500))
    return PlannedNode(
        name="gbdt", notebook="50_train_gbdt", inputs={"clicks": "clicks/clicks"},
        why="Boosted trees: minutes, few settings, and hard to beat below a million rows.",
        params={
            "variants": {"GBDT": {"weighting": "none"}}, "rounds": rounds, "patience": 50,
            "learning_rate": 0.05, "leaves": leaves, "least_in_leaf": least, "ridge": 10.0,
            "columns": 0.8, "group": least, "smooth": 10.0, "drop": [],
        },
        reasons={
            "rounds": "at most; stops after 50 without a better Score",
            "leaves": f"for {size.rows:,} training rows",
            "drop": "every numeric column stays",
        },
        work=size.rows * (size.fields + size.numbers) * rounds * size.folds,
        memory_gb=1 + size.rows * (size.fields + size.numbers) * 8e-9,
    )  # fmt: skip


def ensemble(members: Sequence[str], size: Size) -> PlannedNode:
    return PlannedNode(
        name="ensemble", notebook="57_calibrate_and_ensemble",
        why="Are the probabilities true, and are the models better together?",
        inputs={name: f"{name}/rung" for name in members}, params={"members": list(members)},
        work=(size.judged + size.rows * (size.folds > 1)) * len(members),
    )  # fmt: skip


def ladder(members: Sequence[str], size: Size) -> PlannedNode:
    rungs = [*members, "ensemble"]
    return PlannedNode(
        name="ladder", notebook="59_climb_the_ladder",
        why="Every model beside the others: value with interval, cost, and what the gates decided.",
        inputs={"clicks": "clicks/clicks", **{name: f"{name}/rung" for name in rungs}},
        params={"rungs": rungs}, work=(size.judged + size.rows * (size.folds > 1)) * len(rungs),
    )  # fmt: skip
