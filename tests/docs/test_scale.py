"""docs/scale.md says what docs/results say."""

import json

import pytest

from tests.docs.pages import ROOT
from tools import scale_tables

PAGE = (ROOT / "docs" / "scale.md").read_text("utf-8")
RESULTS = ROOT / "docs" / "results"


def test_the_times_are_up_to_date() -> None:
    assert scale_tables.time_table(RESULTS) in PAGE, (
        "docs/scale.md is old: python tools/scale_tables.py"
    )


def test_a_time_is_events_over_a_measured_rate() -> None:
    told = json.loads((RESULTS / "click_data.json").read_text("utf-8"))
    seconds = 1e9 / told["toss"]["rows_per_second"]
    line = next(line for line in PAGE.splitlines() if line.startswith("| parquet of 119"))
    assert line.split(" | ")[3] == scale_tables.in_words(seconds)
    assert scale_tables.in_words(7_200) == "2 h"


def test_what_was_simulated_stands_on_the_page() -> None:
    told = json.loads((RESULTS / "scale.json").read_text("utf-8"))
    for line in told["table"]["lines"]:
        assert f"| {line['rows']:,} |" in PAGE
        assert f"| {line['lazy_cpu_ms']:.0f} ms |" in PAGE
    full = [round(line["full_cpu_ms"]) for line in told["softmax"]["lines"]]
    assert f"takes {full[0]}, {full[1]} and {full[2]:,} ms" in PAGE
    for number in (line["peak_mib"] for line in told["vocabulary"]["lines"]):
        assert f"{round(number + 0.001):,}" in PAGE


def test_processes_and_preparation_are_told_as_measured() -> None:
    told = json.loads((RESULTS / "scale.json").read_text("utf-8"))
    one, two = told["processes"]["lines"]
    for line in (one, two):
        assert rounded(line["rows_per_cpu_second"]) in PAGE
        assert f"{4_096e3 / line['rows_per_cpu_second']:.0f}" in PAGE
        assert f"({line['loss']:.4f}".replace("(0", "(") in PAGE
    assert f"{told['processes']['cpu_per_row_of_two_over_one']} times the CPU" in PAGE
    for line in told["prepare"]["histories"]:
        assert f"| {line['reviews']:,} | {line['cpu_seconds']:.2g} s |" in PAGE
    for line in told["prepare"]["clicklog"]:
        parts = line["toss"], line["toss_covisits"]
        cells = [f"{p['cpu_seconds']:.1f} s | {p['own_peak_mb'] / 1000:.2f} GB" for p in parts]
        assert f"| {parts[0]['rows']:,} | {' | '.join(cells)} |" in PAGE


def rounded(number: float) -> str:
    """To three digits, as the page tells rates."""
    return f"{round(number, -2):,}"


def test_a_way_that_leads_nowhere_is_named() -> None:
    with pytest.raises(SystemExit, match="rate"):
        scale_tables.look_up({"rates": 1}, "rate.x")
