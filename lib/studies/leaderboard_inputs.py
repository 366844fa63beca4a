"""What other notebooks left behind, as systems that a contest can hold; what is absent is a line.

Ranks come from ``ranks.parquet`` and ``seeds.parquet`` (13, 25, 31), clicks from ``rows.npy`` (14),
``logits.parquet`` (43) and rungs (50 to 60).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from lib.data.clicks import Clicks
from lib.evaluate.clicks import row_log_loss
from lib.evaluate.delong import auc_interval
from lib.studies.compare import MEASURES, measure
from lib.studies.judging import part_of
from lib.studies.ladder import decide_line
from lib.studies.leaderboard import Contest, System, hold_contest, pair_systems
from lib.studies.rungs import Rung

__all__ = ["CONSTANT", "auc_columns", "cost_frame", "gate_frame", "hold_clicks", "hold_ranking",
           "read_costs", "read_llm_clicks", "read_ranks", "read_regression", "rung_systems",
           "unseen_values"]  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CEILING, POPULAR, CONSTANT = "ceiling", "popularity", "constant click rate"
# rows of 13 that repeat how published tables broke ties: conventions, not systems
CONVENTIONS = ("popularity, ties by id", "Markov, ties by first seen, history not filtered")
LLM_NAMES = {"baseline": "DeepFM + GEN", CEILING: CEILING}
NEITHER = {"sasrec": "SASRec (31)", "sasrec+titles": "SASRec+titles (31)", "bpr-mf": "BPR-MF (31)",
           "fpmc": "FPMC (31)"}  # fmt: skip  # rows of 31 without a soft token


def read_ranks(folder: Path, source: str, *, family: str = "") -> list[System]:
    """Rows of a ranking notebook; trained ones get the family's name in front and all their seeds.

    Counted rows and the ceiling, which several notebooks repeat, keep their bare names.
    """
    frame = pl.read_parquet(folder / "ranks.parquet")
    keys = frame.select("user", "position").to_numpy().astype(np.int64)
    seeds: dict[str, list[Floats]] = {}
    if (folder / "seeds.parquet").is_file():
        for name, column in pl.read_parquet(folder / "seeds.parquet").to_dict().items():
            if name not in ("user", "position"):
                seeds.setdefault(name.rpartition("#")[0], []).append(column.to_numpy())
    systems = []
    for row in frame.columns:
        if row in ("user", "position", "item", *CONVENTIONS):
            continue
        name = name_row(row, family) if row in seeds else row
        answers = np.stack(seeds.get(row, [frame[row].to_numpy()])).astype(np.float64)
        systems.append(System(name=name, source=source, keys=keys, answers=answers))
    return systems


def name_row(row: str, family: str) -> str:
    """The name of a trained row among those of other notebooks.

    >>> name_row("id", "SASRec"), name_row("fpmc", "soft tokens")
    ('SASRec: id', 'FPMC (31)')
    """
    if family == "soft tokens" and row in NEITHER:
        return NEITHER[row]
    return f"{family}: {row}" if family else row


def hold_ranking(
    found: Sequence[System], *, name: str, draws: int, seed: int
) -> tuple[Contest, pl.DataFrame]:
    """The contest of all systems on the targets that all of them ranked, and how many those are."""
    kind = name.partition("@")[0]
    if kind not in MEASURES:
        raise ValueError(f"measure {name!r}: expected one of {sorted(MEASURES)} with a cut")
    keys, ranks, counts = pair_systems(without_copies(found))
    values = {row: measure_each_seed(table, name) for row, table in ranks.items()}
    contest = hold_contest("ranking", name, keys, values, trivial=POPULAR, draws=draws, seed=seed)
    return contest, counts


def without_copies(found: Sequence[System]) -> list[System]:
    """The first system of each name: notebooks repeat the counted rows and the ceiling."""
    return list({system.name: system for system in reversed(found)}.values())[::-1]


def measure_each_seed(ranks: Floats, name: str) -> Floats:
    """One value per seed and target.  (S, N) -> (S, N)"""
    return np.stack([measure(one, name) for one in ranks])


def read_regression(folder: Path, source: str) -> list[System]:
    """Logistic regression on the rows that notebook 14 judges."""
    rows = np.load(folder / "rows.npy", allow_pickle=False)
    p = np.load(folder / "probabilities.npy", allow_pickle=False)
    return [System(name="logistic regression", source=source, keys=rows[:, None].astype(np.int64),
                   answers=as_logits(p)[None, :])]  # fmt: skip


def read_llm_clicks(folder: Path, source: str) -> list[System]:
    """The baseline and the language-model rows of notebook 43; its ceiling is asked for anew."""
    frame = pl.read_parquet(folder / "logits.parquet")
    keys = frame["row"].to_numpy().astype(np.int64)[:, None]
    return [
        System(name=LLM_NAMES.get(row, f"LLM-CTR: {row}"), source=source, keys=keys,
               answers=frame[row].to_numpy().astype(np.float64)[None, :])
        for row in frame.columns if row not in ("row", "label", CEILING)
    ]  # fmt: skip


def rung_systems(rungs: Mapping[str, Rung], part: str) -> list[System]:
    """What every rung said of one set of rows; a name that occurs twice gets its node behind it."""
    names = [rung.name for rung in rungs.values()]
    systems = []
    for node, rung in rungs.items():
        own = part_of(rung, part)
        name = rung.name if names.count(rung.name) == 1 else f"{rung.name} ({node})"
        systems.append(System(name=name, source=node, keys=own.rows[:, None].astype(np.int64),
                              answers=own.logits[None, :]))  # fmt: skip
    return systems


def hold_clicks(
    data: str, found: Sequence[System], clicks: Clicks, truth: tuple[Ints, Floats] | None, *,
    draws: int, seed: int,
) -> tuple[Contest, dict[str, Floats], pl.DataFrame]:  # fmt: skip
    """The contest in log loss with the constant click rate, and the ceiling where truth is given.

    ``truth``: numbers of rows and their true probabilities.  -> contest, logits (N,), counts
    """
    systems = list(found)
    if truth is not None:
        systems.append(System(name=CEILING, source="truth", keys=truth[0][:, None],
                              answers=as_logits(truth[1])[None, :]))  # fmt: skip
    keys, answers, counts = pair_systems(systems)
    labels = np.asarray(clicks.label[keys[:, 0]])
    rate = float(np.mean(np.asarray(clicks.label[clicks.rows("train")]) > 0))
    logits = {name: table[0] for name, table in answers.items()}
    logits = {CONSTANT: np.full(len(keys), as_logits(np.array([rate]))[0])} | logits
    values = {name: row_log_loss(labels, expit(each)) for name, each in logits.items()}
    contest = hold_contest(data, "log loss", keys, values, trivial=CONSTANT, better="lower",
                           draws=draws, seed=seed)  # fmt: skip
    return contest, logits, counts


def auc_columns(labels: NDArray[np.integer], logits: Mapping[str, Floats]) -> pl.DataFrame:
    """AUC with DeLong's interval; nothing where the rows hold fewer than two of a class."""
    lines = []
    judgeable = 2 <= int((labels > 0).sum()) <= len(labels) - 2
    for name, each in logits.items():
        area = auc_interval(labels, each) if judgeable else None
        lines.append({"row": name, "auc": area and area.value, "auc_low": area and area.low,
                      "auc_high": area and area.high})  # fmt: skip
    schema = {"row": pl.String, "auc": pl.Float64, "auc_low": pl.Float64, "auc_high": pl.Float64}
    return pl.DataFrame(lines, schema=schema)


def unseen_values(clicks: Clicks, rows: Ints) -> NDArray[np.str_]:
    """Whether training met every value of a row: ids 1 of a field are rare or unseen.  (N,)"""
    local = np.asarray(clicks.take(rows, max_len=1).categorical) - clicks.field_offsets
    return np.where((local == 1).any(axis=1), "a value is rare or new", "every value is known")


def cost_frame(
    rows: Sequence[tuple[str, str]], own: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    nodes: Mapping[str, Mapping[str, float]], prepared_by: Mapping[str, Sequence[str]],
) -> pl.DataFrame:  # fmt: skip
    """Seconds, weights and memory of each (row, node that it comes from).

    ``own``: what that node recorded of the row, a line a seed. ``nodes``: seconds and memory of
    whole notebooks. ``prepared_by``: the notebooks that a row stands on, whose seconds it bears.
    """
    lines = []
    for row, source in rows:
        known, needs = own.get((row, source), ()), prepared_by.get(row, ())
        absent = [node for node in needs if node not in nodes]
        before = sum(nodes[node]["seconds"] for node in needs if node in nodes)
        used = [nodes[node]["memory_mb"] for node in (*needs, source) if node in nodes]
        seconds, weights = mean_of(known, "seconds"), mean_of(known, "parameters")
        paid = seconds is not None or before > 0
        lines.append({
            "row": row, "from": source, "seconds": (seconds or 0.0) + before if paid else None,
            "prepared": before, "parameters": weights, "memory_mb": max(used, default=None),
            "cost_note": f"without {', '.join(absent)}" if absent else "",
        })  # fmt: skip
    return pl.DataFrame(lines, schema={
        "row": pl.String, "from": pl.String, "seconds": pl.Float64, "prepared": pl.Float64,
        "parameters": pl.Float64, "memory_mb": pl.Float64, "cost_note": pl.String,
    })  # fmt: skip


def read_costs(folder: Path, family: str) -> dict[str, list[dict[str, Any]]]:
    """What a notebook's table of costs says of each row, by the name that the row has here."""
    path, found = folder / "tables" / "costs.parquet", dict[str, list[dict[str, Any]]]()
    is_llm = (folder / "logits.parquet").is_file()
    for line in pl.read_parquet(path).iter_rows(named=True) if path.is_file() else ():
        row = str(line["row"])
        name = LLM_NAMES.get(row, f"LLM-CTR: {row}") if is_llm else name_row(row, family)
        found.setdefault(name, []).append({
            "seconds": line.get("seconds", line.get("train seconds")),
            "parameters": line.get("parameters", line.get("numbers trained")),
        })  # fmt: skip
    return found


def gate_frame(
    opened: Mapping[str, tuple[Rung, Mapping[str, Any]]], scenarios: Mapping[str, str]
) -> pl.DataFrame:
    """What every gate asked and answered, and the scenario of each language-model row."""
    meaning = {"A": "adopted", "B": "no worse", "C": "not adopted"}
    lines = []
    for rung, decisions in opened.values():
        asked, answer, reason = decide_line(decisions)
        if asked:
            lines.append({"system": rung.name, "asked": asked, "answer": answer, "because": reason})
    for row, letter in scenarios.items():
        answer = meaning.get(letter, letter)
        lines.append({"system": f"LLM-CTR: {row}", "asked": "AUC against its baseline",
                      "answer": answer, "because": f"scenario {letter}"})  # fmt: skip
    columns = ("system", "asked", "answer", "because")
    return pl.DataFrame(lines, schema=dict.fromkeys(columns, pl.String))


def mean_of(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [float(line[name]) for line in lines if line.get(name) is not None]
    return sum(values) / len(values) if values else None


def as_logits(p: Floats) -> Floats:
    """Logits of probabilities, which must stay off 0 and 1 to come back."""
    clipped = np.clip(np.asarray(p, np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
