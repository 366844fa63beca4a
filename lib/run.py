"""What every notebook calls: parameters, seed, inputs, outputs, metrics, figures, finish.

    run = lib.start("25_evaluate_sasrec", globals())
    histories = Histories.open(run.input("histories"))
    run.metric("ndcg@10", value, ci=(low, high), n=users, better="higher")
    run.save("item_embeddings.npy", embeddings)
    run.finish()

Under the runner everything is written into the node's temporary folder and counts only after
``finish`` and the runner's own checks. In JupyterLab the same calls read the newest finished inputs
of the demo profile, write below ``data/scratch`` and show captions and the result on the spot.
"""

import importlib.metadata
import json
import math
import os
import platform
import random
import resource
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lib import by_hand
from lib.data.files import read_json, write_atomic, write_json
from lib.pipeline import WrongUse
from lib.pipeline.profile import find_home
from lib.pipeline.schema import check_parameters, nearest, parse_schema, read_notebook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

__all__ = ["Run", "start"]

TOLD = ("numpy", "pandas", "polars", "pyarrow", "scipy", "sklearn", "lightgbm", "torch",
        "transformers", "tokenizers", "peft", "safetensors", "matplotlib")  # fmt: skip
PACKAGES = {"sklearn": "scikit-learn"}
WHOLE = {"tbl_hide_dataframe_shape": True, "tbl_hide_column_data_types": True,
         "tbl_rows": 100, "tbl_cols": -1, "fmt_str_lengths": 160}  # fmt: skip  # as on the page
Context = dict[str, Any]


def start(notebook: str, variables: Mapping[str, object]) -> "Run":
    """Open the run of a notebook: check its parameters, seed, find its inputs."""
    place = os.environ.get("LINGREC_CONTEXT")
    told = cast(Context, read_json(Path(place))) if place else None
    context = told or by_hand.context(notebook, variables)
    if context["notebook"] != notebook:
        raise WrongUse(f"lib.start({notebook!r}) stands in the notebook {context['notebook']!r}")
    home = find_home()
    schema = parse_schema(read_notebook(home.notebook(notebook)), f"{notebook}.ipynb")
    missing = sorted(schema.keys() - variables.keys())
    if missing:
        raise WrongUse(f"parameter {missing[0]!r} has no value; run the parameters cell first")
    given = {name: variables[name] for name in schema}
    parameters = check_parameters(schema, given, lambda _: f"{notebook}.ipynb")
    if place and parameters != context["parameters"]:
        raise WrongUse(f"{notebook}: the parameters are not those that the runner passed")
    if not place:  # by hand, what the last run left goes only when this one may begin
        shutil.rmtree(context["work"], ignore_errors=True)
        for name in ("outputs", "figures", "checkpoints"):
            Path(context["work"], name).mkdir(parents=True)
        sys.stdout.write(by_hand.told(context, parameters))
    run = Run(context, parameters)
    seed_everything(run.seed)
    if place:
        threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()
    return run


class Run:
    """One execution of one notebook; everything it declares is on disk when ``finish`` returns."""

    def __init__(self, context: Context, parameters: Mapping[str, object]) -> None:
        self._context = context
        self._work = Path(context["work"])
        self._outputs: list[str] = []
        self._metrics: list[dict[str, object]] = []
        self._tables: list[dict[str, object]] = []
        self._figures: list[dict[str, object]] = []
        self._note = ""
        self._told = 0.0
        self.parameters = dict(parameters)
        self.profile = str(context["profile"])
        self.node = str(context["node"])
        self.seed = int(cast(int, parameters.get("seed") or 0))
        self.device: str = context["device"] or lab_device()

    def input(self, name: str) -> Path:
        """The folder or file of an input; read-only."""
        inputs = self._context["inputs"]
        if name not in inputs:
            raise WrongUse(f"node {self.node} has no input {name!r}. {nearest(name, inputs)}")
        return Path(inputs[name])

    def has_input(self, name: str) -> bool:
        """Whether the profile names this input and, if it is optional, its node has a result."""
        return name in self._context["inputs"]

    def path(self, name: str) -> Path:
        """A declared output, file or folder, for library code to write; ``finish`` expects it."""
        relative = Path(name)
        if relative.is_absolute() or ".." in relative.parts or not name:
            raise WrongUse(f"output {name!r}: expected a relative name such as `histories`")
        if f"outputs/{name}" not in self._outputs:
            self._outputs.append(f"outputs/{name}")
        path = self._work / "outputs" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def scratch(self) -> Path:
        """A folder for checkpoints: it survives a kill of this node, and goes when it succeeds."""
        return Path(self._context["scratch"])

    def save(self, name: str, value: Any) -> None:
        """Write an array (.npy), a polars or pandas frame (.parquet) or plain values (.json)."""
        path = self.path(name)
        match path.suffix:
            case ".json":
                write_json(path, value)
            case ".npy":
                import numpy as np

                array = np.asarray(value)
                if array.dtype.hasobject:
                    raise WrongUse(f"output {name!r}: an array of {array.dtype}; save numbers")
                write_atomic(path, lambda file: np.save(file, array, allow_pickle=False))
            case ".parquet":
                frame = value.to_arrow() if hasattr(value, "to_arrow") else value
                write_atomic(path, lambda file: write_parquet(frame, file))
            case other:
                raise WrongUse(f"output {name!r}: no writer for {other!r}; use .npy, .parquet, "
                               ".json, or run.path")  # fmt: skip

    def metric(
        self, name: str, value: float, *, row: str = "", segment: str = "all",
        ci: "Sequence[float] | None" = None, n: int | None = None, seed: int | None = None,
        unit: str = "", better: Literal["higher", "lower"] | None = None,
    ) -> None:  # fmt: skip
        """Record one number; with (metric, row, segment) it is named once per node."""
        low, high = (float(ci[0]), float(ci[1])) if ci is not None else (None, None)
        for number in (value, low, high):
            if number is not None and not math.isfinite(number):
                raise WrongUse(f"metric {name!r} (row {row!r}): {number}; expected finite numbers")
        identity = {"name": name, "row": row, "segment": segment}
        if any(identity.items() <= known.items() for known in self._metrics):
            raise WrongUse(f"metric {identity} is recorded twice; give it another row or segment")
        self._metrics.append(identity | {
            "value": float(value), "low": low, "high": high, "n": None if n is None else int(n),
            "seed": seed if seed is None else int(seed), "unit": unit, "better": better,
        })  # fmt: skip

    def table(self, name: str, frame: Any, *, caption: str = "") -> None:
        """Show a polars or pandas frame on the page, and keep it as parquet."""
        path = f"tables/{name}.parquet"
        self.save(path, frame)
        path = self.path(path).relative_to(self._work).as_posix()
        self._tables.append({"name": name, "caption": caption, "path": path})
        self._tell(caption)
        show(frame, {"text/html": {"table": name}})  # the page has it once, with its caption

    def figure(self, name: str, figure: "Figure", *, alt: str, caption: str = "") -> None:
        """Keep a matplotlib figure at 150 dpi and show it, with its text for those who hear it."""
        if not alt.strip():
            raise WrongUse(f"figure {name!r}: alt is empty; say what the figure shows")
        import matplotlib.pyplot as plt

        path = self._work / "figures" / f"{name}.png"
        write_atomic(path, lambda file: figure.savefig(
            file, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None}
        ))  # fmt: skip
        plt.close(figure)  # else the inline backend would show it a second time
        declared = path.relative_to(self._work).as_posix()
        self._outputs.append(declared)
        self._figures.append({"name": name, "path": declared, "alt": alt, "caption": caption})
        from IPython.display import Image

        self._tell(caption or alt)
        picture = path.read_bytes()
        width = int.from_bytes(picture[16:20], "big") * 2 // 3  # at 100 dpi: one size of type
        show(Image(data=picture, width=width), {"image/png": {"alt": alt, "figure": name}})

    def note(self, sentence: str) -> None:
        """The result in one sentence, filled from numbers; it stands at the top of the page."""
        self._note = sentence
        self._tell(sentence)

    def _tell(self, sentence: str) -> None:
        """By hand, say on the spot what otherwise stands on the page."""
        if sentence and not self._context["nonce"]:
            from IPython.display import Markdown

            show(Markdown(sentence))

    def progress(self, done: float, total: float, **numbers: float) -> None:
        """Say how far the work is; at most twice a second it reaches the runner."""
        now = time.monotonic()
        if now - self._told < 0.5 and done < total:
            return
        self._told = now
        finite = {name: float(number) for name, number in numbers.items() if math.isfinite(number)}
        if self._context["progress"]:
            path = Path(self._context["progress"])
            temporary = path.with_name(f".partial-progress-{os.getpid()}")
            temporary.write_text(json.dumps({"done": done, "total": total, "numbers": finite}))
            temporary.replace(path)
        else:
            shown = " ".join(f"{name} {number:.4g}" for name, number in finite.items())
            line = f"{done:g}/{total:g} {shown}"  # padded: a longer line before it leaves no trace
            sys.stdout.write(f"\r{line:<100}")

    def finish(self) -> None:
        """Declare success; the runner believes nothing else."""
        missing = [name for name in self._outputs if not (self._work / name).exists()]
        if missing:
            raise WrongUse(f"declared but not written: {', '.join(missing)}")
        torch = sys.modules.get("torch")
        gpu = torch is not None and torch.cuda.is_available()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        write_json(self._work / "finish.json", {
            "nonce": self._context["nonce"], "outputs": self._outputs, "metrics": self._metrics,
            "tables": self._tables, "figures": self._figures, "note": self._note,
            "device": self.device, "versions": loaded_versions(),
            "peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024,
            "gpu_peak_memory_bytes": torch.cuda.max_memory_allocated() if torch and gpu else 0,
        })  # fmt: skip


def write_parquet(frame: Any, file: Any) -> None:
    """An arrow table or a pandas frame as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame)
    pq.write_table(table, file, compression="zstd")


def show(value: object, metadata: Mapping[str, object] | None = None) -> None:
    """Display a value in the notebook; outside one there is nothing to display to."""
    if "IPython" in sys.modules:
        from IPython.display import HTML, display

        polars = sys.modules.get("polars")
        with polars.Config(**WHOLE) if polars is not None else nullcontext():
            if polars is not None and isinstance(value, polars.DataFrame):
                value = HTML(by_hand.readable(value))
            display(value, metadata=metadata)  # type: ignore[no-untyped-call]


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch, the latter two where they are loaded."""
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
        if torch.cuda.is_available():  # on the CPU it would only fill fresh memory and warn
            torch.use_deterministic_algorithms(True, warn_only=True)


def lab_device() -> str:
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"


def loaded_versions() -> dict[str, str]:
    """The versions of what this notebook really loaded."""
    versions = {name: importlib.metadata.version(PACKAGES.get(name, name))
                for name in TOLD if name in sys.modules}  # fmt: skip
    return {"python": platform.python_version(), **versions}


def leave_with_parent(parent: int) -> None:
    """End this kernel and its children soon after its worker is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(os.getpgid(0), 9)
