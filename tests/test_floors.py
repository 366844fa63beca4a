"""The floors of ``lib``: imports go down only, and nothing dangerous is imported anywhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "lib").rglob("*.py"))
FLOORS = {"data": 1, "language": 1, "models": 2, "train": 3, "evaluate": 3, "pipeline": 4,
          "report": 4, "studies": 4, "by_hand": 5, "run": 5}  # fmt: skip
EVERYBODY = {"lib.data.files"}  # atomic writes, pure standard library
ALSO = {"train": {"lib.models.tables"}}  # the table that the training loop updates row by row
WITHOUT_TORCH = {"data", "evaluate", "pipeline", "report"}
CLOSED = {"train": {"models", "data"}, "evaluate": {"models", "data", "train", "language"},
          "models": {"data"}, "language": {"data"}, "data": {"language"},
          "pipeline": {"data", "language", "models", "train", "evaluate"},
          "report": {"data", "language", "models", "train"}}  # fmt: skip
BANNED_IMPORTS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
BANNED_CALLS = {"eval", "exec", "torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle",
                "numpy.load", "np.load"}  # fmt: skip  # np.load only with allow_pickle=False


def package(path):
    parts = path.relative_to(ROOT / "lib").with_suffix("").parts
    return parts[0] if parts[0] != "__init__" else ""


def imports(path):
    """Every module that a file imports, also inside functions but not for type checking only."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {inner for node in ast.walk(tree)
                   if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
                   for inner in ast.walk(node)}  # fmt: skip
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path):
    own = package(path)
    if not own:
        return
    for name in imports(path):
        parts = name.split(".")
        if own in WITHOUT_TORCH:
            assert parts[0] not in {"torch", "transformers"}, f"imports {name}: no torch up here"
        if parts[0] != "lib" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        allowed = EVERYBODY | ALSO.get(own, set())
        if any(name == free or name.startswith(f"{free}.") or name == free.rpartition(".")[0]
               for free in allowed):  # fmt: skip
            continue
        other = parts[1]
        assert other == own or FLOORS[other] <= FLOORS[own], f"imports {name}, a floor above"
        assert other not in CLOSED.get(own, set()), f"imports {name}, which {own} must not know"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_that_runs_code_from_data_is_used(path):
    check_safety(ast.parse(path.read_text("utf-8")))


def check_safety(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            assert not names & BANNED_IMPORTS, f"line {node.lineno}: imports {names}"
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in BANNED_IMPORTS, f"line {node.lineno}"
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert "trust_remote_code" not in words, f"line {node.lineno}: trust_remote_code"
            assert words.get("allow_pickle", "False") == "False", f"line {node.lineno}: pickles"
            assert words.get("weights_only") != "False", f"line {node.lineno}: weights_only=False"
            if name in {"np.load", "numpy.load"}:
                continue  # without allow_pickle=True it cannot read a pickle
            assert name not in BANNED_CALLS, f"line {node.lineno}: calls {name}"
            assert not name.endswith((".read_pickle", ".to_pickle")), f"line {node.lineno}: {name}"


@pytest.mark.parametrize("code", [
    "import pickle", "from joblib import load", "torch.load('x')", "eval('1')",
    "np.load('x', allow_pickle=True)", "AutoModel.from_pretrained('x', trust_remote_code=True)",
    "frame.to_pickle('x')",
])  # fmt: skip
def test_the_ban_catches(code):
    with pytest.raises(AssertionError):
        check_safety(ast.parse(code))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_is_longer_than_three_hundred_lines(path):
    assert len(path.read_text("utf-8").splitlines()) <= 300
