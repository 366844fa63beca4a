"""Checkpoints from which a killed run ends with the same bits as one that was left alone.

A checkpoint is one safetensors file per part and a JSON file that names them; the JSON is replaced
atomically and last, so that at any moment either the old or the new checkpoint is whole. Nothing is
pickled. Frozen weights are not written: the caller builds the same model again.
"""

import dataclasses
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib.data.files import read_json, write_json
from lib.train.group import any_process, gather_tensors
from lib.train.plan import Plan
from lib.train.sharding import copy_into, whole
from lib.train.state import Best, Run, changing_tensors

__all__ = ["load_checkpoint", "random_state", "save_checkpoint", "set_random_state"]

NAME = "checkpoint.json"
FREE = {"checkpoint_every", "checkpoint_seconds", "restarts", "rendezvous"}  # may differ on resume
NUMBERS = (
    *("epoch", "position", "step", "pieces", "stopped", "precision", "summed_steps", "rows"),
    *("terms", "stale", "reductions", "history", "changes"),
)


def save_checkpoint(run: Run, folder: Path | None) -> None:
    """Write the whole state of the run; every process takes part, the first one writes."""
    run.saved, run.saved_step = time.perf_counter(), run.step
    if folder is None:
        return
    tensors = {f"model.{name}": t for name, t in changing_tensors(run.model).items()}
    tensors |= {f"optimizer.{name}": t for name, t in run.optimizer.tensors()}
    if run.average:
        tensors |= {f"average.{name}": t for name, t in run.average.tensors()}
    tensors |= {f"sum.{name}": t for name, t in run.sums.items()}
    tensors = {name: whole(tensor.detach()) for name, tensor in tensors.items()}
    tensors |= {
        f"random.{name}": torch.stack(gather_tensors(t[None].to(run.device)))[:, 0].cpu()
        for name, t in random_state(run.device).items()
    }
    if run.rank == 0:
        write(run, folder, tensors)


def write(run: Run, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {"state": f"state-{run.step}.safetensors"}
    write_tensors(folder / files["state"], tensors)
    if run.best:
        files["best"] = f"best-{run.best.step}.safetensors"
        if not (folder / files["best"]).is_file():
            write_tensors(folder / files["best"], run.best.weights)
    best = run.best and {"epoch": run.best.epoch, "step": run.best.step, "score": run.best.score}
    state = {name: getattr(run, name) for name in NUMBERS}
    write_json(
        folder / NAME,
        {
            "plan": plan_fields(run.plan),
            "files": files,
            "best": best,
            "seconds": run.seconds,
            "optimizer_steps": run.optimizer.steps,
            "average_steps": run.average.steps if run.average else 0,
            **state,
        },
    )
    for path in folder.glob("*.safetensors"):
        if path.name not in files.values():
            path.unlink()


def load_checkpoint(run: Run, folder: Path | None) -> bool:
    """Continue where the last checkpoint in ``folder`` stopped; False where there is none."""
    found = folder is not None and (folder / NAME).is_file()
    if any_process(found, run.device) and any_process(not found, run.device):
        raise FileNotFoundError(
            f"{folder}: its checkpoint is seen by some processes only; expected one folder that "
            "all machines share"
        )
    if folder is None or not found:
        return False
    state = cast(dict[str, Any], read_json(folder / NAME))
    ours = plan_fields(run.plan)
    other = sorted(
        k for k in ours.keys() | state["plan"].keys() if ours.get(k) != state["plan"].get(k)
    )
    if other:
        raise ValueError(
            f"{folder}: its checkpoint belongs to another plan, which differs in {other}; "
            "resume with the same plan, or remove the folder to start anew"
        )
    parts = read_parts(folder / state["files"]["state"])
    for name, tensor in changing_tensors(run.model).items():
        copy_into(tensor, parts["model"].pop(name))
    run.optimizer.load(parts.get("optimizer", {}), state["optimizer_steps"])
    if run.average:
        run.average.load(parts["average"], state["average_steps"])
    run.sums = {name: t.to(run.device) for name, t in parts.get("sum", {}).items()}
    own = {name: states[run.rank].clone() for name, states in parts["random"].items()}
    set_random_state(own, run.device)  # cloned: set_rng_state reads past a view's offset
    for name in NUMBERS:
        setattr(run, name, state[name])
    run.earlier_seconds, run.saved_step = state["seconds"], run.step
    if state["best"]:
        run.best = Best(**state["best"], weights=read_tensors(folder / state["files"]["best"]))
    return True


def plan_fields(plan: Plan) -> dict[str, Any]:
    fields = dataclasses.asdict(plan)
    fields["groups"] = list(fields["groups"])  # as JSON gives it back
    return {name: value for name, value in fields.items() if name not in FREE}


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of all global generators as tensors of fixed size."""
    version, words, gauss = random.getstate()
    del version, gauss  # the same in every process; a cached normal number is not kept
    name, keys, position, has_gauss, cached = cast(Any, np.random.get_state())  # noqa: NPY002
    del name
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(keys.astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate((3, tuple(state["python"].tolist()), None))
    position, has_gauss, cached = state["numpy_rest"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", keys, int(position), int(has_gauss), cached)
    )
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Under a temporary name first; the checkpoint's JSON names only files that are whole."""
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_parts(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of one file, by the first word of their names."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(path).items():
        kind, rest = name.split(".", 1)
        parts.setdefault(kind, {})[rest] = tensor
    return parts
