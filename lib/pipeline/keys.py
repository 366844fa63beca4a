"""What a result depends on, as hashes: code, parameters, inputs, library, lock file, device.

Never time, user, host or an absolute path. Upstream nodes enter through the content of their
outputs, so work stops spreading where a changed node makes the same files again.
"""

import ast
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from lib.data.files import sha256_of
from lib.pipeline import WrongUse
from lib.pipeline.profile import CODE_ROOT, Home, Node
from lib.pipeline.schema import Notebook, code_cells, is_parameters

__all__ = ["SCHEMA", "Hashes", "component_hashes", "device_class", "digest", "library_files"]

SCHEMA = 1
RACY_NS = 20_000_000  # a file changed this shortly before hashing may change again unseen


def digest(value: object) -> str:
    """The sha256 of a value's canonical JSON.

    >>> digest({"k": [1, 23]}) == digest({"k": [12, 3]})
    False
    """
    text = json.dumps(value, sort_keys=True, allow_nan=False)  # joined strings would collide
    return hashlib.sha256(text.encode()).hexdigest()


class Hashes:
    """Content hashes, remembered by size, mtime, ctime and inode: any difference hashes again.

    The memory is a file of lines that processes append to; a torn line is ignored.
    """

    def __init__(self, store: Path, *, trust: bool = True) -> None:
        self.path, self.root = store / "hashes.jsonl", store.parent
        self.known: dict[str, list[object]] = {}
        self.fresh: dict[str, list[object]] = {}
        there = trust and self.path.is_file()
        for line in self.path.read_text("utf-8", "replace").splitlines() if there else []:
            with suppress(ValueError, TypeError):
                name, *entry = json.loads(line)
                self.known[name] = entry

    def learn(self, name: str, entry: list[object]) -> list[object]:
        self.known[name] = self.fresh[name] = entry
        return entry

    def of(self, path: Path) -> str:
        """The sha256 of one file."""
        name, status = os.path.relpath(path, self.root), path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        entry = self.known.get(name)
        if entry and entry[:-1] == stamp:
            return cast(str, entry[-1])
        now, sha = time.time_ns(), sha256_of(path)
        if max(stamp[1:3]) < now - RACY_NS:
            self.learn(name, [*stamp, sha])
        return sha

    def tree(self, path: Path) -> str:
        """The hash of a file's content, or of a folder's names and contents."""
        if path.is_file():
            return self.of(path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest({file.relative_to(path).as_posix(): self.of(file) for file in files})

    def imports(self, path: Path, package: str) -> list[str]:
        """What a module imports from ``lib``, remembered by its content."""
        name = f"imports {package} {self.of(path)}"
        found = self.known.get(name)
        if found is None:
            names = imported_names(path.read_text("utf-8"), package, path.name)
            found = self.learn(name, [*sorted(names)])
        return cast("list[str]", found)

    def save(self) -> None:
        """Append what was learned; a store that cannot be written only costs hashing again."""
        lines = "".join(json.dumps([name, *entry]) + "\n" for name, entry in self.fresh.items())
        self.fresh = {}
        if lines:
            with suppress(OSError), self.path.open("a", encoding="utf-8") as file:
                file.write(lines)


def imported_names(code: str, package: str = "", source: str = "a code cell") -> set[str]:
    """The modules of ``lib`` that a piece of code may import, also inside functions.

    >>> sorted(imported_names("from lib.data import clicks"))
    ['lib.data', 'lib.data.clicks']
    """
    names: set[str] = set()
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise WrongUse(f"{source}, line {error.lineno}: {error.msg}; correct it first") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(base if node.level else []), node.module or ""]).strip(".")
            names.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
    return {name for name in names if name.split(".")[0] == "lib"}


def library_files(sources: Iterable[str], hashes: Hashes, root: Path = CODE_ROOT) -> list[Path]:
    """The transitive import closure in ``lib`` of some code, with data files beside the modules."""
    queue = {name for code in sources for name in imported_names(code)}
    modules, files = set[str](), set[Path]()
    while queue:
        modules.add(name := queue.pop())
        parent, base = name.rpartition(".")[0], root.joinpath(*name.split("."))
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        found = {parent} if parent else set()
        if path.is_file():  # else it is a name inside a module, not a module
            files.add(path)
            found |= set(hashes.imports(path, name if base.is_dir() else parent))
        queue |= found - modules
    for folder in {path.parent for path in files}:
        files.update(Path(entry.path) for entry in os.scandir(folder)
                     if not entry.name.endswith((".py", ".pyc")) and entry.is_file())  # fmt: skip
    return sorted(files)


def device_class(node: Node) -> str:
    """``cuda`` for a node that asks for a GPU where there is one; the rest is ``cpu``."""
    if not node.resources["gpu"]:
        return "cpu"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    there = "cuda" if Path("/dev/nvidia0").exists() and not hidden else "cpu"
    return os.environ.get("LINGREC_DEVICE") or there


def component_hashes(
    home: Home, node: Node, notebook: Notebook, parameters: Mapping[str, object],
    inputs: Mapping[str, str], hashes: Hashes,
) -> dict[str, object]:  # fmt: skip
    """Every part of the key by name, so that two keys can be compared part by part."""
    cells = code_cells(notebook)
    code = [[c["source"], c["metadata"].get("tags", [])] for c in cells if not is_parameters(c)]
    # IPython's magics are not Python; lines that start with one import nothing
    sources = ["\n".join(" " if line.lstrip().startswith(("%", "!")) else line
                         for line in cell["source"].splitlines()) for cell in cells]  # fmt: skip
    return {
        "schema": SCHEMA,
        "code": digest(code),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "device": device_class(node),
        "seed": parameters.get("seed", 0),
        "lock": hashes.of(home.lock),
        **{f"param.{name}": value for name, value in parameters.items()},
        **{f"input.{name}": value for name, value in inputs.items()},
        **{file.relative_to(CODE_ROOT).as_posix(): hashes.of(file)
           for file in library_files(sources, hashes)},
    }  # fmt: skip
