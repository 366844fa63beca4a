"""The leaderboard as tables for a page and as sentences; every word of them hangs on a number.

Nothing here is typed in advance: change a verdict and the sentence changes. Cells stay short,
because a page cuts a cell at 160 characters.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from lib.studies.leaderboard import Contest

__all__ = ["advise", "headline", "language_sentences", "shown_board", "shown_language",
           "shown_segments"]  # fmt: skip

Line = Mapping[str, Any]
INTERVAL = r"\[([^,\]]+), ([^,\]]+)\]"
PLAIN = {"no difference shown": "none shown"}  # the verdict in a column called difference
FAR = {"better": "better", "worse": "worse", "no difference shown": "≈", "not measured": "–"}


def signed(value: float, digits: int) -> str:
    """A number with its sign, minus as a minus.

    >>> signed(-0.125, 2)
    '−0.12'
    """
    return f"{value:+.{digits}f}".replace("-", "−")


def amount(value: float | None, unit: str = "") -> str:
    """A size with two or three significant digits; unknown as a dash.

    >>> amount(1234.9, "s"), amount(0.0321), amount(None)
    ('1,235 s', '0.032', '–')
    """
    if value is None:
        return "–"
    text = f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
    return f"{text} {unit}".strip()


def gain_text(line: Line) -> str:
    """A gain with its interval, in per cent of the gap; of the counterpart's value without one."""
    if line["gain"] is None:
        return "–"
    gap = line["points"] is not None
    ends = [line[name] for name in ("points", "points_low", "points_high")]
    if not gap:
        ends = [line[name] / (line["base"] or 1.0) for name in ("gain", "low", "high")]
    width = 100 * (ends[2] - ends[1])
    digits = 1 if width >= 0.5 else 2 if width >= 0.05 else 3
    value, low, high = (signed(100 * end, digits) for end in ends)
    return f"{value} [{low}, {high}]{'' if gap else ' % of its value'}"


def p_text(p: float | None) -> str:
    """
    >>> p_text(0.0004), p_text(0.031), p_text(None)
    ('< .001', '.031', '–')
    """
    if p is None:
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"


def shown_language(table: pl.DataFrame, costs: pl.DataFrame) -> pl.DataFrame:
    """What the language model adds, a line a comparison: gain, p, verdict, cost of both."""
    seconds = {row: value for row, value in costs.select("row", "seconds").iter_rows()}
    lines = []
    for line in table.sort(pl.col("verdict") == "not measured", maintain_order=True).iter_rows(
        named=True
    ):
        ours, theirs = seconds.get(line["row"]), seconds.get(line["against"])
        times = f" ({amount(ours / theirs)}×)" if ours and theirs else ""
        lines.append({
            "row with a language model, against": f"{line['row']} against {line['against']}",
            "difference": PLAIN.get(line["verdict"], line["verdict"]),
            "gain, % of the gap": gain_text(line), "p (Holm)": p_text(line["p_holm"]),
            "cost": f"{amount(ours, 's')}{times}", "on": line["data"],
            "seeds": "–" if line["seeds"] is None else str(line["seeds"]),
        })  # fmt: skip
    return unbroken(pl.DataFrame(lines))


def shown_board(board: pl.DataFrame, contest: Contest) -> pl.DataFrame:
    """One table of systems, best first; ◆ marks those that nobody beats in both value and cost."""
    lines = []
    for line in board.iter_rows(named=True):
        is_system = line["row"] != contest.ceiling
        cheap = FAR.get(line["cheap_verdict"] or "", "")
        best = FAR.get(line["best_verdict"] or "", "best" if line["row"] == line["best"] else "–")
        shown = {"system": line["row"], contest.measure: with_interval(line, "value", 4)}
        if "auc" in board.columns:
            shown["AUC"] = with_interval(line, "auc", 4)
        if line["share"] is not None:
            shown["% of the gap"] = with_interval(line, "share", 0, 100.0)
        shown |= {
            f"against {line['cheap']}": f"{raw_gain(line, 'cheap_')} {cheap}".strip(),
            "against the best": best,
            "seeds": seeds_text(line),
            "cost": f"{amount(line['seconds'], 's')}{' ◆' if line['front'] else ''}",
            "weights": amount(line["parameters"]),
            "memory": amount(line["memory_mb"] if is_system else None, "MB"),
            "note": line["cost_note"] or "",
        }  # fmt: skip
        lines.append(shown)
    frame = unbroken(pl.DataFrame(lines))
    return frame.drop("note") if "note" in frame.columns and not any(frame["note"]) else frame


def unbroken(frame: pl.DataFrame) -> pl.DataFrame:
    """The same with intervals that no line breaks in two."""
    return frame.with_columns(pl.col(pl.String).str.replace_all(INTERVAL, "[${1},\u00a0${2}]"))


def raw_gain(line: Line, prefix: str = "") -> str:
    """A gain with its interval in the measure's own unit."""
    if line[f"{prefix}gain"] is None:
        return ""
    value, low, high = (line[f"{prefix}{k}"] for k in ("gain", "low", "high"))
    return f"{signed(value, 4)} [{signed(low, 4)}, {signed(high, 4)}]"


def seeds_text(line: Line) -> str:
    spread = line["seed_spread"]
    return str(line["seeds"]) if spread is None else f"{line['seeds']}, ±{spread:.4f}"


def with_interval(line: Line, name: str, digits: int, factor: float = 1.0) -> str:
    """A value with its interval behind it; ``value`` and ``auc`` have ends of their own names."""
    ends = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    if line[name] is None:
        return "–"
    value, low, high = (f"{round(factor * line[k], digits) + 0.0:.{digits}f}"
                        for k in (name, *ends))  # fmt: skip  # + 0.0: no minus before a nought
    return f"{value} [{low}, {high}]".replace("-", "−")


def shown_segments(table: pl.DataFrame) -> pl.DataFrame:
    """Gains of the pairs inside segments."""
    return unbroken(pl.DataFrame([
        {"segment": f"{line['by']}: {line['segment']}", "row": line["row"],
         "against": line["against"], "gain": raw_gain(line),
         "p (Holm)": p_text(line["p_holm"]),
         "difference": PLAIN.get(line["verdict"], line["verdict"]), "n": line["n"]}
        for line in table.iter_rows(named=True)
    ]))  # fmt: skip


def headline(language: pl.DataFrame, boards: Mapping[str, pl.DataFrame]) -> str:
    """The project's question, answered in a sentence or three."""
    firsts = language.unique("row", keep="first", maintain_order=True)
    asked = firsts.filter(pl.col("verdict") != "not measured")
    better = asked.filter(verdict="better")["row"].to_list()
    worse = asked.filter(verdict="worse")["row"].to_list()
    if not len(asked):
        told = "No row with a language model was measured here."
    elif not better:
        told = (f"No row with a language model is shown better than its counterpart without one "
                f"({len(asked)} asked).")  # fmt: skip
    else:
        told = (f"{len(better)} of {len(asked)} rows with a language model are shown better than "
                f"their counterpart without one: {', '.join(better)}.")  # fmt: skip
    if worse:
        told += f" Shown worse: {', '.join(worse)}."
    return " ".join([told, *cheap_sentences(language, boards)])


def cheap_sentences(language: pl.DataFrame, boards: Mapping[str, pl.DataFrame]) -> list[str]:
    """Whether any row with a language model beats the cheap row of its table."""
    rows, told = set(language["row"]), []
    for data, board in boards.items():
        ours = board.filter(pl.col("row").is_in(list(rows)))
        if not len(ours) or "cheap" not in board.columns:
            continue
        cheap = board["cheap"][0]
        beat = ours.filter(cheap_verdict="better")["row"].to_list()
        who = ", ".join(beat) or "no row with a language model"
        verb = "are" if len(beat) > 1 else "is"
        told.append(f"On {data}, {who} {verb} shown better than {cheap}.")
    return told


def language_sentences(
    language: pl.DataFrame, boards: Mapping[str, pl.DataFrame]
) -> list[dict[str, str]]:
    """One line per row with a language model: its honest counterpart first, then the cheap row."""
    lines = []
    for row in language["row"].unique(maintain_order=True):
        first, *others = language.filter(row=row).iter_rows(named=True)
        beaten = [line["against"] for line in others if line["verdict"] == "better"]
        gain = gain_text(first)
        use, because = {
            "better": ("use it", f"{gain} over {first['against']}, p {p_text(first['p_holm'])}"),
            "worse": ("leave it", f"{gain}: worse than {first['against']}"),
            "no difference shown": ("no need", f"{gain}: no gain over {first['against']}"),
            "not measured": ("nothing known", str(first["missing"])),
        }[first["verdict"]]  # fmt: skip
        if beaten and first["verdict"] != "better":
            because += f"; it does beat {', '.join(beaten)}"
        told, cheap = against_cheap(row, boards)
        if told in ("worse", "no difference shown"):
            because += f"; {'worse' if told == 'worse' else 'not shown better'} than {cheap}"
            use = {"use it": "only if you need it for more"}.get(use, use)
        if first["seeds"] == 1:
            because += "; one seed"
        lines.append({"when": f"you think of {row}", "use": use, "because": because})
    return lines


def against_cheap(row: str, boards: Mapping[str, pl.DataFrame]) -> tuple[str, str]:
    """The verdict on a row against the cheap row of its table, and which that is."""
    for board in boards.values():
        for line in board.filter(row=row).iter_rows(named=True):
            return line["cheap_verdict"] or "", line["cheap"]
    return "", ""


def advise(
    language: pl.DataFrame, boards: Mapping[str, pl.DataFrame], segments: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """What to use when: of each table the cheapest system that is not shown worse than the best."""
    lines = []
    for data, board in boards.items():
        lines += [*board_advice(data, board), *segment_advice(data, board, segments.get(data))]
    return pl.DataFrame(lines + language_sentences(language, boards),
                        schema=dict.fromkeys(("when", "use", "because"), pl.String))  # fmt: skip


def board_advice(data: str, board: pl.DataFrame) -> list[dict[str, str]]:
    if "best" not in board.columns:
        return []
    best, cheap = board["best"][0], board["cheap"][0]
    rivals = board.filter(pl.col("cheap_verdict").is_not_null() | (pl.col("row") == cheap))
    as_good = rivals.filter(
        (pl.col("best_verdict") == "no difference shown") | (pl.col("row") == best)
    )
    paid = as_good.filter(pl.col("seconds").is_not_null()).sort("seconds")
    pick = paid.row(0, named=True) if len(paid) else board.filter(row=best).row(0, named=True)
    share = "" if pick["share"] is None else f", {100 * pick['share']:.0f} % of the gap"
    because = f"{pick['value']:.4f}{share}, {amount(pick['seconds'], 's')}; "
    cheaper = rivals.filter(pl.col("seconds") < (pick["seconds"] or 0.0))
    if pick["row"] == best:
        told = "all that is cheaper is shown worse" if len(cheaper) else "nothing is cheaper"
        because += f"the best mean, and {told}"
    else:
        because += f"the best mean, {best}, is not shown better"
    lines = [{"when": f"{data}: the first system", "use": pick["row"], "because": because}]
    if not len(board.filter(cheap_verdict="better")):
        lines.append({"when": f"{data}: more than the cheap row", "use": "nothing yet",
                      "because": f"no system is shown better than {cheap}"})  # fmt: skip
    left = board.filter(row=best)["share"][0]
    if left is not None:
        because = f"{100 * (1 - left):.0f} % of the gap is beyond {best}, the best mean"
        lines.append({"when": f"{data}: what remains", "use": "a better idea", "because": because})
    return lines


def segment_advice(
    data: str, board: pl.DataFrame, table: pl.DataFrame | None
) -> list[dict[str, str]]:
    """For every segment in which a row with a language model is shown better than without one.

    A row that is shown worse than the cheap row of its table is no advice anywhere.
    """
    if table is None:
        return []
    lines, poor = [], board.filter(cheap_verdict="worse")["row"].to_list()
    better = table.filter((pl.col("verdict") == "better") & ~pl.col("row").is_in(poor))
    for line in better.iter_rows(named=True):
        use = line["row"]
        because = f"{line['row']} against {line['against']}: {raw_gain(line)}"
        when = f"{data}, {line['by']} {line['segment']}"
        lines.append({"when": when, "use": use, "because": because})
    return lines
