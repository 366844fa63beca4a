"""Every notebook has one anatomy. No kernel is started: the files are read."""

import ast
import json
import re
import statistics
from pathlib import Path

import pytest

from lib.pipeline.plan import node_parameters
from lib.pipeline.profile import Home, load_profile
from lib.pipeline.schema import parse_schema, read_notebook

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROFILES = sorted((ROOT / "params").glob("*.yaml"))
FORBIDDEN = {
    r"^\s*[!%]": "a shell escape or magic",
    r"\bsys\.path\b": "sys.path",
    r"filterwarnings": "silenced warnings",
    r"trust_remote_code": "trust_remote_code",
    r"\bpip install\b": "an install command",
    r"cuda:\d": "a device number",
    r"hf_[A-Za-z0-9]{20}": "a token",
}
ABSOLUTE = re.compile(
    r"""(["'\s(]|^)(/(home|root|Users|tmp|mnt|work|data|etc|usr)/|[A-Z]:\\\\|~/)"""
)


def cells_of(path, kind="code"):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def tagged(cell):
    return "parameters" in cell["metadata"].get("tags", [])


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def test_the_name_is_a_number_a_verb_and_an_object(notebook):
    assert re.fullmatch(r"\d{2}_[a-z0-9]+(_[a-z0-9]+)+", notebook.stem)


def test_the_first_cell_is_a_title_that_asks_with_inputs_outputs_and_links(notebook):
    first = json.loads(notebook.read_text("utf-8"))["cells"][0]
    assert first["cell_type"] == "markdown"
    title, *rest = source(first).splitlines()
    assert re.match(r"# \S.*\?$", title), f"{title!r} is not `# A question?`"
    text = "\n".join(rest).lower()
    for word in ("input", "output", "runtime"):
        assert word in text, f"the first cell does not tell its {word}"
    links = re.findall(r"\]\(([^)]+\.ipynb)\)", source(first))
    assert links, "no link to a previous or next notebook"
    for link in links:
        assert (notebook.parent / link).exists(), f"{link} does not exist"


def test_imports_stand_in_the_first_code_cell_and_nowhere_else(notebook):
    first, *rest = cells_of(notebook)
    kinds = {type(node) for node in ast.parse(source(first)).body}
    assert kinds <= {ast.Import, ast.ImportFrom}, "the first code cell holds more than imports"
    for cell in rest:
        found = [node for node in ast.walk(ast.parse(source(cell)))
                 if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
        assert not found, f"an import outside the first cell: {ast.unparse(found[0])}"


def test_the_second_code_cell_is_the_schema_with_a_meaning_for_each_parameter(notebook):
    assert [n for n, cell in enumerate(cells_of(notebook)) if tagged(cell)] == [1]
    for field in parse_schema(read_notebook(notebook), notebook.name).values():
        assert field.meaning, f"{field.name} has no comment that says what it is"


def test_it_starts_and_finishes(notebook):
    cells = [source(cell) for cell in cells_of(notebook)]
    assert cells[2].startswith(f'run = lib.start("{notebook.stem}", globals())')
    last = ast.parse(cells[-1]).body[-1]
    assert ast.unparse(last).startswith("run.finish("), "the last line is not run.finish()"


def test_cells_are_few_and_short(notebook):
    lines = [len(source(cell).splitlines()) for cell in cells_of(notebook)]
    assert len(lines) <= 15, f"{len(lines)} code cells"
    assert max(lines) <= 20, f"a cell of {max(lines)} lines"
    assert statistics.median(lines) <= 6, f"the median is {statistics.median(lines)} lines"


def test_logic_lives_in_lib(notebook):
    for cell in cells_of(notebook):
        found = [node for node in ast.walk(ast.parse(source(cell)))
                 if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Try)]  # fmt: skip
        assert not found, f"line {found[0].lineno} of a cell defines or catches: move it to lib"


def test_nothing_forbidden_and_no_absolute_path_is_written(notebook):
    for cell in cells_of(notebook):
        for pattern, what in FORBIDDEN.items():
            assert not re.search(pattern, source(cell), re.MULTILINE), what
        assert not ABSOLUTE.search(source(cell)), "an absolute path"


def test_it_is_stored_without_outputs_and_with_lasting_ids(notebook):
    stored = json.loads(notebook.read_text("utf-8"))
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert stored["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in stored["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in cells_of(notebook):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_it_runs_in_the_smoke_and_the_demo_profile(notebook):
    timings = notebook.stem == "91_measure_speed"  # of no use in the demo: it wants a quiet machine
    for name in ("smoke",) if timings else ("smoke", "demo"):
        nodes = load_profile(Home(ROOT), name).nodes.values()
        assert notebook.stem in {node.notebook for node in nodes}, f"in no node of {name}"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_node_of_every_profile_fits_its_notebook(profile):
    home = Home(ROOT)
    for node in load_profile(home, profile.stem).nodes.values():
        notebook, _ = node_parameters(home, node)
        asked = set(re.findall(r"run\.input\(\"(\w+)\"\)", "".join(map(str, sources(notebook)))))
        assert asked <= node.inputs.keys() | optional(notebook), f"{node.name}: {asked}"


def sources(notebook):
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def optional(notebook):
    """Inputs that the notebook asks for before it uses them."""
    return set(re.findall(r"run\.has_input\(\"(\w+)\"\)", "".join(map(str, sources(notebook)))))
