"""papermill behind one function, its verdict never trusted.

Its output file says `completed` for cells that never ran when a kernel dies, so nothing here reads
it: the caller gets the notebook in memory, what went wrong, and decides.
"""

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import psutil

from lib.pipeline.lease import holder_is_alive, process_stamp
from lib.pipeline.profile import CODE_ROOT

__all__ = ["Execution", "clean_text", "execute_notebook", "hide_places", "to_text"]

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def clean_text(text: str) -> str:
    """Text without terminal codes.

    >>> clean_text("\\x1b[31mred\\x1b[0m")
    'red'
    """
    return ANSI.sub("", text)


@dataclass
class Execution:
    """One execution under way or over; ``stop`` may be called from another thread."""

    cell: int = -1
    cells: int = 0
    title: str = "starting the kernel"
    peak_bytes: int = 0
    process: Any = None
    stopped: str = ""
    error: BaseException | None = None
    notebook: Any = None
    seconds: list[float] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)

    @property
    def death(self) -> str:
        """How the kernel ended, if it died under a cell."""
        if type(self.error).__name__ != "DeadKernelError":
            return ""
        code = self.process.poll() or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def stop(self, reason: str) -> None:
        """Kill the kernel and all that it started."""
        self.stopped = self.stopped or reason
        if self.process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def sample_memory(self) -> None:
        """Remember the largest memory of the kernel with its children."""
        if self.process is None:
            return
        with contextlib.suppress(psutil.Error):
            kernel = psutil.Process(self.process.pid)
            family = [kernel, *kernel.children(recursive=True)]
            self.peak_bytes = max(self.peak_bytes, sum(p.memory_info().rss for p in family))


def cell_titles(notebook: Mapping[str, Any]) -> list[str]:
    """For each cell the last heading above it, else its first line."""
    titles, heading = [], ""
    for cell in notebook["cells"]:
        first = next((line for line in cell["source"].splitlines() if line.strip()), "")
        if cell["cell_type"] == "markdown":
            heads = [line for line in cell["source"].splitlines() if line.startswith("#")]
            heading = heads[-1].lstrip("# ") if heads else heading
        titles.append(heading or first)
    return titles


def socket_folder() -> Path:
    """A new folder that only this user can enter; those of dead workers are removed."""
    place = tempfile.gettempdir()
    base = Path(place if len(place) < 40 else Path(os.sep, "tmp"))
    for old in base.glob("nb_*"):
        if holder_is_alive(old.name.removeprefix("nb_").partition(".")[0]) is False:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"nb_{process_stamp()}.", dir=base))


def execute_notebook(
    source: Mapping[str, Any], parameters: Mapping[str, object], environment: Mapping[str, str],
    folder: Path, root: Path, log: TextIO, watch: Callable[[Execution], None],
) -> Execution:  # fmt: skip
    """Run all cells in a kernel of their own; ``watch`` is called four times a second."""
    # papermill imports a grammar of internationalised addresses (1.4 s), one of durations (0.1 s)
    # and pyarrow (0.15 s), all optional and of no use here; a None makes their import fail at once.
    for unused in ("rfc3987_syntax", "isoduration", "pyarrow"):
        sys.modules.setdefault(unused, None)  # type: ignore[arg-type]
    import nbformat
    import papermill
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine, papermill_engines

    # A socket's path must be short and absolute: longer than 107 bytes it cannot be bound.
    sockets = socket_folder()
    run = Execution(titles=cell_titles(source), cells=len(source["cells"]))

    class Manager(AsyncKernelManager):  # type: ignore[misc]
        """A kernel of this interpreter, reached through files that only this user can open."""

        def __init__(self, **settings: Any) -> None:
            place = {"ip": str(sockets / "k"), "connection_file": str(sockets / "kernel.json")}
            super().__init__(**(settings | place | {"transport": "ipc"}))
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            self._kernel_spec = KernelSpec(argv=argv, language="python")

        async def _async_post_start_kernel(self, **settings: Any) -> None:
            run.process = self.provisioner.process
            await super()._async_post_start_kernel(**settings)

        post_start_kernel = _async_post_start_kernel

    class Client(PapermillNotebookClient):  # type: ignore[misc]
        """Streams what cells print into the log."""

        def log_output_message(self, output: Any) -> None:
            if output.output_type == "stream":
                log.write(hide_places(clean_text("".join(output.text)), root))
                log.flush()

    class Steps(Engine):  # type: ignore[misc]
        """Tells which cell is running."""

        @classmethod
        def execute_managed_notebook(cls, manager: Any, kernel_name: str, **_: Any) -> None:
            run.notebook, begin = manager.nb, manager.cell_start
            run.titles, run.cells = cell_titles(manager.nb), len(manager.nb.cells)
            run.seconds = [0.0] * run.cells
            end = manager.cell_complete

            def started(cell: Any, index: int) -> None:
                run.cell, run.title = index, run.titles[index]
                watch(run)
                run.seconds[index] = time.monotonic()
                begin(cell, index)

            def ended(cell: Any, cell_index: int) -> None:
                run.seconds[cell_index] = time.monotonic() - run.seconds[cell_index]
                end(cell, cell_index=cell_index)

            manager.cell_start, manager.cell_complete = started, ended
            client = Client(manager, kernel_name=kernel_name, kernel_manager_class=Manager,
                            log_output=True, timeout=None, startup_timeout=120,
                            shutdown_kernel="immediate")  # fmt: skip
            client.execute(env=dict(environment), cwd=str(folder), stdout=log, stderr=log)

    over = threading.Event()

    def keep_watch() -> None:
        while not over.wait(0.25):
            run.sample_memory()
            watch(run)

    papermill_engines.register("lingrec", Steps)
    watcher = threading.Thread(target=keep_watch, daemon=True)
    watcher.start()
    try:
        notebook = nbformat.from_dict(copy.deepcopy(dict(source)))
        run.notebook = papermill.execute_notebook(
            notebook, None, parameters=dict(parameters), engine_name="lingrec",
            kernel_name="python3", language="python", progress_bar=False,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - whatever it was, the caller tells it apart
        run.error = error
    finally:
        if run.notebook is not None:  # papermill adds cells that announce an error
            cells, marker = run.notebook.cells, "papermill-error-cell-tag"
            run.notebook.cells = [c for c in cells if marker not in c.metadata.get("tags", [])]
        over.set()
        watcher.join()
        run.stop("")  # a kernel that outlived its notebook
        shutil.rmtree(sockets, ignore_errors=True)
    return run


def hide_places(text: str, root: Path) -> str:
    """Text without the absolute paths of this machine."""
    for place, shown in ((root, ""), (CODE_ROOT, ""), (Path(sys.prefix), ""), (Path.home(), "~/")):
        text = text.replace(f"{place}/", shown)
    return text


def to_text(notebook: Mapping[str, Any], root: Path) -> str:
    """An executed notebook as text, without terminal codes, times of day or absolute paths."""
    stripped = json.loads(json.dumps(notebook))
    stripped["metadata"].pop("papermill", None)
    for cell in stripped["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
        for output in cell.get("outputs", []):
            if "traceback" in output:
                output["traceback"] = [clean_text(line) for line in output["traceback"]]
    text = json.dumps(stripped, indent=1, ensure_ascii=False)
    return hide_places(text, root) + "\n"
