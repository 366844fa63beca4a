"""What surrounds a notebook: the variables set before its kernel starts, and the code's version."""

import os
import shutil
import subprocess
from pathlib import Path

from lib.pipeline.keys import device_class
from lib.pipeline.profile import CODE_ROOT, Home, Node
from lib.pipeline.schema import Notebook

__all__ = ["git_state", "kernel_environment", "memory_bytes", "title_of"]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS",
           "POLARS_MAX_THREADS", "NUMEXPR_NUM_THREADS")  # fmt: skip
FIXED = {
    "PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUTF8": "1",
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false", "TQDM_MININTERVAL": "30",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's wish for widgets, on every page
    # glibc gives blocks of 32 MiB back at once and fetches them, page by page, for the next step:
    # an epoch of xDeepFM took twice the time. Larger ones still go back; other systems ignore this.
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}  # fmt: skip


def kernel_environment(home: Home, node: Node, work: Path) -> dict[str, str]:
    """What must be set before the kernel starts, for equal results and no network."""
    own = {
        "IPYTHONDIR": str(work / "cwd" / ".ipython"), "PYTHONPATH": str(CODE_ROOT),
        "LINGREC_CONTEXT": str(work / "context.json"), "LINGREC_HOME": str(home.root),
        **({"CUDA_VISIBLE_DEVICES": ""} if device_class(node) == "cpu" else {}),
    }  # fmt: skip
    threads = str(max(1, int(node.resources["cpu"])))
    return os.environ | dict.fromkeys(THREADS, threads) | FIXED | own


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def title_of(notebook: Notebook) -> str:
    """The notebook's first heading."""
    lines = [line for cell in notebook["cells"] if cell["cell_type"] == "markdown"
             for line in "".join(cell["source"]).splitlines()]  # fmt: skip
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


def git_state() -> dict[str, object]:
    """The commit that ran and whether files differed from it; empty outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(CODE_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    if shutil.which("git") is None:
        return {}
    dirty = git("status", "--porcelain", "--", "lib", "notebooks", "params", "requirements.lock")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(dirty)}
