"""papermill's client behind one class, its verdict never trusted.

What papermill writes says `completed` for cells that never ran when a kernel dies, so nothing here
reads it: the caller gets the notebook in memory, what went wrong, and decides.
"""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from lib.pipeline.lease import SOCKETS
from lib.pipeline.profile import CODE_ROOT
from lib.pipeline.schema import Notebook

__all__ = ["LATE", "Execution", "clean_text", "hide_places", "to_text"]

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
LATE = 20  # seconds from the answer of a cell to the last of its output, on a busy machine
USER_FOLDER = re.compile(r"(?<![\w.~])/(?:home|Users)/[^/\s'\"\\]+|(?<![\w.~])/root(?=/)")


def clean_text(text: str) -> str:
    """Text without terminal codes.

    >>> clean_text("\\x1b[31mred\\x1b[0m")
    'red'
    """
    return ANSI.sub("", text)


def hide_places(text: str, root: Path) -> str:
    """Text without the absolute paths of this machine and the names of its users.

    >>> hide_places("/srv/lib/a.py /home/ada/b", Path("/srv"))
    'lib/a.py ~/b'
    """
    for place in (root, CODE_ROOT, Path(sys.prefix)):
        text = text.replace(f"{place}/", "").replace(str(place), ".")
    return USER_FOLDER.sub("~", text.replace(f"{Path.home()}/", "~/"))


def cell_titles(cells: list[Notebook]) -> list[str]:
    """For each cell the last heading above it, else its first line."""
    titles, heading = [], ""
    for cell in cells:
        lines = [line for line in cell["source"].splitlines() if line.strip()] or [""]
        heads = [line for line in lines if line.startswith("#") and cell["cell_type"] != "code"]
        heading = heads[-1].lstrip("# ") if heads else heading
        titles.append(heading or lines[0])
    return titles


class Execution:
    """One execution of a notebook; papermill's client reports each cell to the methods below."""

    def __init__(self, notebook: Notebook, watch: Callable[[], None]) -> None:
        self.nb: Any = notebook
        self.watch = watch
        self.cell, self.title = -1, "starting the kernel"
        self.titles = cell_titles(notebook["cells"])
        self.seconds: list[float] = []
        self.peak_bytes, self.stopped = 0, ""
        self.error: Exception | None = None
        self.manager: Any = None
        self.started: Any = None
        self.sockets = ""

    @property
    def process(self) -> Any:
        """The kernel, once it was started; also after its end, which its manager forgets."""
        provisioner = self.manager and self.manager.provisioner
        self.started = self.started or getattr(provisioner, "process", None)
        return self.started

    @property
    def death(self) -> str:
        """How the kernel ended, if it died under a cell."""
        if type(self.error).__name__ != "DeadKernelError":
            return ""
        code = self.process.poll() or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    @property
    def unheard(self) -> bool:
        """Whether a cell was answered, but not all that it showed came: no other limit is set."""
        return type(self.error).__name__ == "CellTimeoutError"

    def stop(self, reason: str) -> None:
        """Kill the kernel and all that it started; may be called from another thread."""
        self.stopped = self.stopped or reason
        if self.process is not None:
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def cell_start(self, _: object, index: int) -> None:
        self.cell, self.title = index, self.titles[index]
        self.watch()
        self.seconds[index] = time.monotonic()

    def cell_complete(self, _: object, cell_index: int) -> None:
        self.seconds[cell_index] = time.monotonic() - self.seconds[cell_index]

    def cell_exception(self, _: object, exception: Any, **_place: int) -> None:
        if exception.ename != "SystemExit":  # that is a notebook that ended early
            self.error = exception

    def autosave_cell(self) -> None:
        """Nothing is saved under way."""

    def keep_watch(self, over: threading.Event) -> None:
        """Four times a second: the memory of the kernel with its children, and ``watch``."""
        import psutil

        while not over.wait(0.25):
            with suppress(psutil.Error, AttributeError):
                kernel = psutil.Process(self.process.pid)
                family = [kernel, *kernel.children(recursive=True)]
                used = sum(process.memory_info().rss for process in family)
                self.peak_bytes = max(self.peak_bytes, used)
            self.watch()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep watch over what happens inside; what went wrong there is in ``error``."""
        over = threading.Event()
        watcher = threading.Thread(target=self.keep_watch, args=(over,), daemon=True)
        watcher.start()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller tells it apart
            self.error = error
        finally:
            over.set()
            watcher.join()
            self.stop("")  # a kernel that outlived its notebook
            shutil.rmtree(self.sockets, ignore_errors=True)

    def execute(
        self, parameters: Mapping[str, object], environment: dict[str, str], folder: Path,
        root: Path, log: TextIO,
    ) -> None:  # fmt: skip
        """Run all cells in a kernel of their own."""
        # papermill imports a grammar of internationalised addresses (1.4 s), one of durations
        # (0.1 s) and pyarrow (0.15 s), of no use here; a None makes their import fail at once.
        for unused in ("rfc3987_syntax", "isoduration", "pyarrow"):
            sys.modules.setdefault(unused, None)  # type: ignore[arg-type]
        import nbformat
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager
        from papermill.clientwrap import PapermillNotebookClient
        from papermill.parameterize import parameterize_notebook

        class Client(PapermillNotebookClient):  # type: ignore[misc]
            """Streams what cells print into the log."""

            def log_output_message(self, output: Any) -> None:
                if output.output_type == "stream":
                    log.write(hide_places(clean_text("".join(output.text)), root))
                    log.flush()

        self.nb = nbformat.from_dict(json.loads(json.dumps(self.nb)))
        self.nb.metadata["papermill"] = {}
        for cell in self.nb.cells:
            cell.metadata.setdefault("tags", [])
        if parameters:
            self.nb = parameterize_notebook(
                self.nb, dict(parameters), kernel_name="python3", language="python"
            )
        self.titles = cell_titles(self.nb.cells)
        self.seconds = [0.0] * len(self.titles)
        # Sockets that only this user can open; a path longer than 107 bytes cannot be bound.
        near = tempfile.gettempdir()
        self.sockets = tempfile.mkdtemp(prefix=SOCKETS, dir=near if len(near) < 40 else "/tmp")
        place = {"ip": f"{self.sockets}/k", "connection_file": f"{self.sockets}/kernel.json"}
        self.manager = AsyncKernelManager(transport="ipc", **place)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager._kernel_spec = KernelSpec(argv=argv, language="python")
        client = Client(
            self, km=self.manager, kernel_name="python3", log_output=True, timeout=None,
            startup_timeout=120, iopub_timeout=LATE, shutdown_kernel="immediate",
        )  # fmt: skip
        client.execute(env=environment, cwd=str(folder), stdout=log, stderr=log, cleanup_kc=True)


def to_text(notebook: Mapping[str, Any], root: Path) -> str:
    """An executed notebook as text, without terminal codes, times of day or absolute paths."""
    stripped = json.loads(json.dumps(notebook))
    for part in [stripped, *stripped["cells"]]:
        for name in ("papermill", "execution"):
            part["metadata"].pop(name, None)
    for cell in stripped["cells"]:
        for output in cell.get("outputs", []):
            if "traceback" in output:
                output["traceback"] = [clean_text(line) for line in output["traceback"]]
    return hide_places(json.dumps(stripped, indent=1, ensure_ascii=False), root) + "\n"
