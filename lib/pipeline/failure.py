"""What went wrong, for people: where, what, the last lines, and how to see it again."""

import re
import shutil
from pathlib import Path

from lib.pipeline.notebook import Execution, clean_text, hide_places
from lib.pipeline.store import Json, Store, folder_bytes

__all__ = ["describe_failure", "explain", "missing_space"]

FULL = re.compile(r"No space left on device|File too large|Errno (27|28)\b")
MEMORY = re.compile(
    r"MemoryError|Cannot allocate|bad_alloc|failed to map|out of memory|not enough memory|"
    r"Failed to launch worker thread|can't (start new|spawn worker) thread"
)
# said at other times too: a thread that could not be started, an extension that lost its error
PERHAPS = re.compile(r"kind: WouldBlock|without (exception set|setting an exception)")
FRAME = re.compile(r"(lib/[\w/]+\.py):(\d+)")


def explain(error: Exception, run: Execution, root: Path, log: Path, lack: str) -> Json:
    """The cell, the place in ``lib``, the message and the last lines of a failed execution."""
    message, cell = clean_text(str(error)), run.cell
    # a kernel without memory may end a cell and fail to show why: then its answer tells
    lines = clean_text(getattr(run.error, "traceback", "")).splitlines()
    for n, found in enumerate(run.nb["cells"]):
        for output in found.get("outputs", []):
            if output["output_type"] == "error":
                lines, cell = clean_text("\n".join(output["traceback"])).splitlines(), n
    for signs, how in ((MEMORY, "out of memory"), (PERHAPS, "perhaps out of memory")):
        if signs.search(message) and "peak memory" not in message:
            message += f" - {how}, with a peak memory of {run.peak_bytes / 1e6:.0f} MB"
    frames = FRAME.findall("\n".join(line for line in lines if "site-packages" not in line))
    if not lines and log.exists():
        lines = log.read_text("utf-8").splitlines()
    return {
        "cell": cell, "title": run.titles[cell] if 0 <= cell < len(run.titles) else run.title,
        "place": ":".join(frames[-1]) if frames else "",
        "message": hide_places(message, root) + lack,
        "lines": [hide_places(line, root) for line in lines[-15:]],
        "peak_memory_bytes": run.peak_bytes,
    }  # fmt: skip


def missing_space(error: Exception, run: Execution, work: Path, last: Path | None) -> str:
    """If a disk or a limit was full: what was written, what is free, and what is missing."""
    outputs = [output for cell in run.nb["cells"] for output in cell.get("outputs", [])]
    if not any(FULL.search(str(text)) for text in (error, *(o.get("evalue") for o in outputs))):
        return ""
    written, had = folder_bytes(work) / 1e6, folder_bytes(last) / 1e6 if last else 0.0
    free = shutil.disk_usage(work).free / 1e6
    known = f", the last result has {had:.2f} MB" if had else ""
    return (
        f" - disk full: {written:.2f} MB were written, {free:.2f} MB are free{known}; at least "
        f"{max(had - written, 0.01):.2f} MB are missing. Free space or run `run_all.py gc --keep 1`"
    )


def describe_failure(store: Store, name: str, said: str) -> str:
    """The stored failure of a node as lines for the console; a killed worker has stored none."""
    error = store.failure(name)
    if not error:
        log, again = f"data/store/{store.profile}/{name}/log.txt", f"{store.profile} --only {name}"
        said = said or "the worker ended without a word"
        return f"    {said}\n    log: {log}\n    again: python run_all.py {again}"
    place = f", {error['place']}" if error["place"] else ""
    lines = [f"{error['notebook']}.ipynb, cell {error['cell']} {error['title'][:80]!r}{place}",
             error["message"], *(f"  | {line}" for line in error["lines"]),
             f"log: {error['log']}", f"again: {error['reproduce']}"]  # fmt: skip
    return "\n".join(f"    {line}" for line in lines)
