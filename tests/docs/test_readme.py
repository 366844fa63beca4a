"""What the README shows is what the files say: map, results, picture, folders."""

import json
import re
from pathlib import Path

import pytest

from lib.pipeline.profile import Home, load_profile
from tests.docs.pages import ROOT
from tools import readme

TEXT = (ROOT / "README.md").read_text("utf-8")


def test_map_and_results_are_up_to_date() -> None:
    assert readme.up_to_date(TEXT) == TEXT, (
        "README.md is older than its sources: python tools/readme.py"
    )


def test_a_changed_figure_makes_the_readme_old(tmp_path: Path) -> None:
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "params").symlink_to(ROOT / "params")
    kept = json.loads((ROOT / "docs/results/frappe.json").read_text("utf-8"))
    rows = kept["nodes"]["dcnv2"]["metrics"]
    (tmp_path / "docs/results/frappe.json").write_text(json.dumps(kept))
    before = readme.results_table(Home(tmp_path))
    for name in rows:
        if "auc" in rows[name]:
            rows[name]["auc"] = [0.5, 0.4, 0.6]
    (tmp_path / "docs/results/frappe.json").write_text(json.dumps(kept))
    after = readme.results_table(Home(tmp_path))
    assert before != after
    assert ".5000 [.4000, .6000]" in after


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "params").symlink_to(ROOT / "params")
    (tmp_path / "docs" / "results").mkdir(parents=True)
    table = readme.results_table(Home(tmp_path))
    assert "docs/results/" not in table
    for shown in readme.SHOWN:
        assert re.search(rf"\| {re.escape(shown.system)} \| demo.* \*not run", table), shown.system


def test_every_box_and_arrow_of_the_map_is_in_the_demo_and_reaches_all() -> None:
    drawn = readme.draw_map(Home(ROOT))
    nodes = load_profile(Home(ROOT), "demo").nodes
    boxes = set(re.findall(r"^    n(\d\d)\[", drawn, re.MULTILINE))
    assert boxes == {node.notebook[:2] for node in nodes.values()}
    reads = {
        (nodes[need].notebook[:2], node.notebook[:2])
        for node in nodes.values() for need in node.needs
    }  # fmt: skip
    arrows = set(re.findall(r"^  n(\d\d) --> n(\d\d)$", drawn, re.MULTILINE))
    assert arrows <= reads
    assert closure(arrows) == closure({(a, b) for a, b in reads if a != b})


def closure(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Every way along arrows, the slow way."""
    found = set(pairs)
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    return found


def test_an_arrow_that_another_way_implies_is_left_out() -> None:
    uses = {"a": set(), "b": {"a"}, "c": {"b", "a"}, "d": {"c", "a"}}
    assert [readme.direct(name, uses) for name in "abcd"] == [set(), {"a"}, {"b"}, {"c"}]


def test_a_missing_mark_is_named() -> None:
    with pytest.raises(SystemExit, match="made: map"):
        readme.fill("no marks here", {"map": "x"})


def test_the_picture_is_small_and_described() -> None:
    ((alt, picture),) = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", TEXT)
    assert 5_000 < (ROOT / picture).stat().st_size < 150_000
    assert len(alt.split()) >= 8, "the alternative text says what is to be seen"


def test_every_folder_and_system_is_named() -> None:
    for folder in ("notebooks", "lib", "params", "data", "reports", "docs", "tools", "tests"):
        assert f"`{folder}/`" in TEXT
    numbers = sorted(path.name[:2] for path in (ROOT / "notebooks").glob("*.ipynb"))
    spans = re.findall(r"\| (\d\d) – (\d\d) \|", TEXT)
    assert all(any(a <= n <= b for a, b in spans) for n in numbers)
