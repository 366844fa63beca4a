"""A notebook in JupyterLab: the requests of Run All Cells, to a real server and a real kernel."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tools.lab_server import change_source, lab, run_by_requests


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_notebook_runs_by_hand_and_again_with_another_value(
    finished_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINGREC_PROFILE", "smoke")
    path, small = "notebooks/13_measure_baselines.ipynb", {"draws": "200", "max_valid": "100"}
    with lab(finished_tree) as server:
        first = run_by_requests(server, path, {**small, "grid": "{}"}, seconds=600)
        assert first["problem"] == ""
        assert first["figures"] >= 1
        assert first["tables"] >= 2
        wrong = run_by_requests(server, path, {"draws": "-1"}, seconds=600)
        assert "draws" in wrong["problem"], "a value out of range is refused with the reason"
        missing = run_by_requests(server, "notebooks/25_evaluate_sasrec.ipynb", {}, seconds=600)
        assert "run_all.py smoke --until" in missing["problem"], "it says what makes the input"
    scratch = finished_tree / "data" / "scratch" / "13_measure_baselines" / "outputs"
    assert (scratch / "ranks.parquet").is_file()


def test_a_changed_value_keeps_its_comment() -> None:
    source = 'draws: int = 20  # 1..: "draws" # of one\nname: str = "a"'
    assert (
        change_source(source, "draws", "5")
        == 'draws: int = 5  # 1..: "draws" # of one\nname: str = "a"'
    )
    assert change_source(source, "name", '"b"').endswith('name: str = "b"')
    with pytest.raises(SystemExit, match="'nmae'"):
        change_source(source, "nmae", "1")


def test_make_lab_opens_where_one_starts() -> None:
    (place,) = re.findall(
        r"--LabApp\.default_url='?/lab/tree/([^'?\s]+)", (ROOT / "Makefile").read_text()
    )
    start = (ROOT / place).read_text("utf-8")
    assert start.startswith("# Start here")
    for named in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", start):
        assert (ROOT / "notebooks" / named).is_file()
