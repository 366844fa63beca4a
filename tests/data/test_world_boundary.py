"""Only evaluation opens the truth: by import, and by the inputs of the nodes."""

import ast
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOORS = {ROOT / "lib" / "studies" / "ceiling.py"}  # the only module of lib that opens the truth
SECRET = {
    "lib.data.world.truth",
    "lib.data.world.ceilings",
    "lib.data.world.summary",
    *(".".join(door.relative_to(ROOT).with_suffix("").parts) for door in DOORS),
}
ALLOWED = ("simulate", "measure", "evaluate", "compare", "climb", "calibrate", "diagnose")  # verbs
MAKER = ROOT / "lib" / "data" / "world"


def imported(source: str) -> set[str]:
    """Every module, and every name of a module, that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def may_know(notebook: str) -> bool:
    return notebook.split("_")[1] in ALLOWED


def source_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_only_the_door_of_the_studies_imports_the_truth_and_nothing_imports_the_door():
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "lib").rglob("*.py"))
        if not path.is_relative_to(MAKER)
        and path not in DOORS
        and imported(path.read_text(encoding="utf-8")) & SECRET
    ]
    assert wrong == []


def test_no_part_of_the_world_that_writes_raw_files_imports_the_truth():
    for path in MAKER.glob("*.py"):
        if f"lib.data.world.{path.stem}" not in SECRET:
            assert not imported(path.read_text(encoding="utf-8")) & SECRET, path.name


def test_only_notebooks_that_evaluate_import_the_truth():
    wrong = [
        path.stem
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
        if imported(source_of(path)) & SECRET and not may_know(path.stem)
    ]
    assert wrong == []


@pytest.mark.parametrize("profile", sorted((ROOT / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_no_node_that_trains_has_the_truth_among_its_inputs(profile: Path):
    nodes = yaml.load(profile.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["nodes"]
    makers = {name for name, node in nodes.items() if node["notebook"].startswith("00_")}
    for name, node in nodes.items():
        for reference in (node.get("inputs") or {}).values():
            maker, _, below = str(reference).removesuffix("?").partition("/")
            whole = maker in makers and below.partition("/")[0] in ("", "truth")
            assert not whole or may_know(node["notebook"]), f"{name} reads {reference}"
