"""From the folders of other notebooks to one table per set of data: who stood where, at what cost.

A folder that is not there (its node failed, or the profile has none) leaves a line in
``missing_frame``; nothing stops.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lib.data.clicks import Clicks
from lib.data.files import read_json
from lib.data.histories import Histories, Targets
from lib.evaluate.segments import by_number
from lib.studies import leaderboard_inputs as inputs
from lib.studies.judging import PARTS, part_of
from lib.studies.leaderboard import (
    Contest,
    System,
    best_row,
    compare_pairs,
    judge,
    leaderboard,
    pareto_front,
)
from lib.studies.rows import segment_labels
from lib.studies.rungs import Rung, open_rung

__all__ = ["Settings", "Standing", "ask_language_models", "compare_segments", "cost_table",
           "full_board", "missing_frame", "node_facts", "nodes_of", "open_rungs", "stand_clicks",
           "stand_ranking", "stand_rungs"]  # fmt: skip

Folders = Mapping[str, Path]
Opened = Mapping[str, tuple[Rung, Mapping[str, Any]]]
OpenTruth = Callable[[Path, str, Clicks, NDArray[np.int64]], NDArray[np.float64]]
LEAST_IN_SEGMENT = 50  # rows; an interval from fewer says nothing


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every table of the page shares."""

    draws: int
    seed: int
    cheap: Sequence[str]  # names or nodes; the first that a table holds is its cheap row
    open_truth: OpenTruth | None = None  # only a notebook that evaluates may hand it in


@dataclass(frozen=True)
class Standing:
    """One set of data: the contest, who was judged on how much, segments, and AUC for clicks."""

    contest: Contest
    coverage: pl.DataFrame
    segments: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    areas: pl.DataFrame | None = None

    @property
    def sources(self) -> dict[str, str]:
        """Row -> the node it comes from."""
        return dict(zip(self.coverage["row"], self.coverage["from"], strict=True))

    def cheap(self, names: Sequence[str]) -> str:
        """The first of some names (of a row, or of its node) that stands here; else the trivial."""
        rows, sources = self.contest.rows, self.sources
        for name in names:
            for row in rows:
                if name in (row, sources.get(row)):
                    return row
        return self.contest.trivial


def stand_ranking(
    folders: Folders, families: Mapping[str, str], measure: str, settings: Settings
) -> dict[str, Standing]:
    """All rows of the ranking notebooks that are there, on the targets that all of them ranked."""
    found = [system for name, family in families.items() if name in folders
             for system in inputs.read_ranks(folders[name], name, family=family)]  # fmt: skip
    if not found:
        return {}
    contest, counts = inputs.hold_ranking(
        found, name=measure, draws=settings.draws, seed=settings.seed
    )
    labels: dict[str, NDArray[np.str_]] = {}
    if "histories" in folders:
        histories = Histories.open(folders["histories"])
        users, positions = contest.keys.T
        labels = segment_labels(histories, Targets(users.astype(np.int32), positions))
    return {"ranking": Standing(contest, counts, labels)}


def stand_clicks(
    folders: Folders, data: str, *, clicks: str, regression: str, llm: str, log: str,
    settings: Settings,
) -> dict[str, Standing]:  # fmt: skip
    """Logistic regression, the click model and the language-model rows on the same test rows."""
    if clicks not in folders or llm not in folders:
        return {}
    table = Clicks.open(folders[clicks])
    found = inputs.read_llm_clicks(folders[llm], llm)
    if regression in folders:
        found = inputs.read_regression(folders[regression], regression) + found
    rows = np.intersect1d(found[0].keys, found[-1].keys)
    return {data: hold(data, found, table, rows, folders, log, {}, settings)}


def stand_rungs(
    folders: Folders, data: str, opened: Opened, *, clicks: str, regression: str, log: str,
    settings: Settings,
) -> dict[str, Standing]:  # fmt: skip
    """Every rung, out of fold and on the held-out day; regression has no answers out of fold."""
    if clicks not in folders or not opened:
        return {}
    table, rungs = Clicks.open(folders[clicks]), {name: rung for name, (rung, _) in opened.items()}
    standings = {}
    for name in PARTS:
        found = inputs.rung_systems(rungs, name)
        if name == "hold-out" and regression in folders:
            found += inputs.read_regression(folders[regression], regression)
        own = part_of(next(iter(rungs.values())), name)
        visitor = dict(zip(own.rows.tolist(), own.segment.tolist(), strict=True))
        title = f"{data}, {name}"
        standings[title] = hold(title, found, table, own.rows, folders, log, visitor, settings)
    return standings


def hold(
    data: str, found: Sequence[System], clicks: Clicks, rows: NDArray[np.int64],
    folders: Folders, log: str, visitor: Mapping[int, str], settings: Settings,
) -> Standing:  # fmt: skip
    truth = None
    if "truth" in folders and settings.open_truth is not None:
        truth = rows, settings.open_truth(folders["truth"], log, clicks, rows)
    contest, logits, counts = inputs.hold_clicks(
        data, found, clicks, truth, draws=settings.draws, seed=settings.seed
    )
    judged = contest.keys[:, 0]
    segments = {"values": inputs.unseen_values(clicks, judged)}
    if any(visitor.values()):
        segments["visitor"] = np.array([visitor[row] for row in judged.tolist()])
    areas = inputs.auc_columns(np.asarray(clicks.label[judged]), logits)
    return Standing(contest, counts, segments, areas)


def open_rungs(folders: Folders, names: Sequence[str]) -> Opened:
    """The rungs that are there, by the names of their inputs."""
    return {name: open_rung(folders[name]) for name in names if name in folders}


def records_of(folders: Folders) -> dict[str, dict[str, Any]]:
    """The runner's record of the result behind each input; it lies above the outputs.

    An input that no notebook made has none.
    """
    found = {}
    for name, path in folders.items():
        record = next((up / "record.json" for up in (path, *path.parents)[:6]
                       if (up / "record.json").is_file()), None)  # fmt: skip
        if record is not None:
            found[name] = cast(dict[str, Any], read_json(record))
    return found


def nodes_of(folders: Folders) -> list[str]:
    """The nodes behind the inputs."""
    return sorted({str(record["node"]) for record in records_of(folders).values()})


def node_facts(folders: Folders) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of the whole notebook behind each input."""
    return {
        name: {"seconds": float(record["seconds"]),
               "memory_mb": float(record["peak_memory_bytes"]) / 2**20}
        for name, record in records_of(folders).items()
    }  # fmt: skip


def cost_table(
    folders: Folders, standings: Mapping[str, Standing], families: Mapping[str, str],
    opened: Opened, prepared_by: Mapping[str, Sequence[str]],
) -> pl.DataFrame:  # fmt: skip
    """What every row of every table cost: its own seconds and those of what it stands on."""
    rows = list(dict.fromkeys(pair for each in standings.values() for pair in each.sources.items()))
    own: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, folder in folders.items():
        for row, lines in inputs.read_costs(folder, families.get(name, "")).items():
            own[row, name] = lines
    for row, source in rows:
        if source in opened:
            rung = opened[source][0]
            own[row, source] = [{"seconds": rung.seconds, "parameters": rung.parameters}]
    return inputs.cost_frame(rows, own, node_facts(folders), prepared_by)


def full_board(standing: Standing, costs: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The leaderboard with its differences to the cheap row and to the best, cost and front.

    Each of the two sets of differences is corrected by itself.
    """
    contest = standing.contest
    best, cheap = best_row(contest), standing.cheap(settings.cheap)
    named = leaderboard(contest).join(standing.coverage.select("row", "from"), on="row", how="left")
    board = named.join(costs, on=["row", "from"], how="left")
    if best is None:
        return board
    for name, other in (("cheap", cheap), ("best", best)):
        pairs = [(row, other) for row in contest.rows if row != other]
        table = judge(compare_pairs(contest, pairs), draws=settings.draws)
        columns = ("gain", "low", "high", "p_holm", "verdict")
        found = table.select("row", pl.col(columns).name.prefix(f"{name}_"))
        board = board.join(found, on="row", how="left")
    gains = contest.sign * board["value"].to_numpy()
    ours = (board["row"] != (contest.ceiling or "")).to_numpy()
    seconds = board["seconds"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    front = pareto_front(np.where(ours, seconds, np.nan), gains)
    if standing.areas is not None:
        board = board.join(standing.areas, on="row", how="left")
    return board.with_columns(front=front, cheap=pl.lit(cheap), best=pl.lit(best))


def ask_language_models(
    standings: Mapping[str, Standing], questions: Mapping[str, Sequence[str]], settings: Settings
) -> pl.DataFrame:
    """Each row with a language model against its counterparts without, Holm over all of them.

    A question belongs to the table that holds its row; where none does, the line says so.
    """
    parts = []
    for row, others in questions.items():
        home = next((s for s in standings.values() if row in s.contest.values), None)
        pairs = [(row, other) for other in others]
        if home is not None:
            parts.append(compare_pairs(home.contest, pairs))
        else:
            parts.append(absent_pairs(pairs))
    return judge(pl.concat(parts) if parts else absent_pairs([]), draws=settings.draws)


def absent_pairs(pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    empty = Contest(data="–", measure="", better="higher", keys=np.zeros((0, 1), np.int64),
                    values={}, drawn=np.zeros((1, 0)), trivial="", ceiling=None)  # fmt: skip
    return compare_pairs(empty, pairs)


def compare_segments(
    standing: Standing, pairs: Sequence[tuple[str, str]], settings: Settings
) -> pl.DataFrame:
    """The same pairs inside every segment with enough rows, Holm over the whole table."""
    parts, places = [], []
    pairs = [pair for pair in pairs if set(pair) <= set(standing.contest.values)]
    for by, labels in standing.segments.items():
        for segment in sorted(set(labels.tolist()), key=by_number):
            inside = labels == segment
            if pairs and inside.sum() >= LEAST_IN_SEGMENT:
                contest = standing.contest.within(inside, seed=settings.seed)
                parts.append(compare_pairs(contest, pairs))
                places += [{"by": by, "segment": segment}] * len(pairs)
    table = judge(pl.concat(parts) if parts else absent_pairs([]), draws=settings.draws)
    schema = {"by": pl.String, "segment": pl.String}
    return pl.concat([pl.DataFrame(places, schema=schema), table], how="horizontal")


def missing_frame(
    expected: Sequence[str], folders: Folders, standings: Mapping[str, Standing]
) -> pl.DataFrame:
    """What takes no part, or only a part of its rows, and why."""
    reason = "no result: its node failed, has not run, or is not in this profile"
    lines = [{"what": name, "why": reason} for name in expected if name not in folders]
    for data, standing in standings.items():
        for line in standing.coverage.iter_rows(named=True):
            if line["compared"] < line["judged"]:
                why = f"all judged {line['compared']:,} of its {line['judged']:,} rows"
                lines.append({"what": f"{line['row']} on {data}", "why": why})
    return pl.DataFrame(lines, schema={"what": pl.String, "why": pl.String})
