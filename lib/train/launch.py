"""Several processes or machines, through PyTorch's own elastic launcher.

`train` calls `launch` when the plan asks for more than one process and none runs yet. Each process
gets model, source, loss and validate through multiprocessing, so these must be importable objects
(functions of a module, partials, instances of module-level classes), not closures. When a process
dies, the launcher starts the group again and it continues from the last checkpoint.
"""

import contextlib
import copy
import dataclasses
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib.data.files import read_json, write_json
from lib.models.tables import lazy_tables
from lib.train.plan import Plan
from lib.train.sharding import copy_into, shard_model, whole
from lib.train.sources import Batch
from lib.train.state import Loss, changing_tensors

__all__ = ["launch", "named_losses", "prepare_forward"]

PROGRESS, WEIGHTS = "progress.json", "result.safetensors"


class LossOfModel(nn.Module):
    """Model and loss as one module, so that DistributedDataParallel sees the whole forward pass."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if any(isinstance(v, Tensor) and len(v) == 0 for v in batch.values()):
            used = [p.sum() * 0 for p in self.model.parameters() if p.requires_grad]
            return {"loss": torch.stack(used).sum()}  # fewer rows than processes: no term of ours
        return named_losses(self.loss(self.model, batch))


def named_losses(losses: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One loss under the name ``loss``, or the named losses as they are."""
    named = {"loss": losses} if isinstance(losses, Tensor) else dict(losses)
    for name, value in named.items():
        if not isinstance(value, Tensor) or value.ndim != 0:
            raise ValueError(f"loss {name!r} must be a tensor without axes, got {value!r:.80}")
    return named


def prepare_forward(
    model: nn.Module, loss: Loss, plan: Plan
) -> Callable[[Batch], Mapping[str, Tensor]]:
    """The step's forward pass: plain, replicated in every process, or sharded over them."""
    whole_loss = LossOfModel(model, loss)
    if not dist.is_available() or not dist.is_initialized():
        return whole_loss
    if plan.sharding == "shard":
        shard_model(model)
        return whole_loss
    ignored = [f"model.{name}.weight" for name in lazy_tables(model)]  # exchanged as rows
    replicate = nn.parallel.DistributedDataParallel
    replicate._set_params_and_buffers_to_ignore_for_model(whole_loss, ignored)
    return replicate(whole_loss, find_unused_parameters=True)


def launch(
    train: Callable[..., Any],
    model: nn.Module,
    source: object,
    loss: Loss,
    *,
    plan: Plan,
    scratch: Path | None,
    report: Callable[..., object] | None,
    **rest: object,
) -> Any:
    """Run ``train`` in every process; bring the best weights and the result of the first back."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with contextlib.ExitStack() as stack:
        folder = scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        config = LaunchConfig(
            min_nodes=plan.machines,
            max_nodes=plan.machines,
            nproc_per_node=plan.processes,
            run_id=f"train-{plan.seed}",
            rdzv_backend="c10d",
            rdzv_endpoint=plan.rendezvous or "localhost:0",
            max_restarts=plan.restarts,
            monitor_interval=0.2,
            start_method="spawn",
        )
        stack.enter_context(fresh_meeting_point())
        if report:
            stack.enter_context(relayed(folder / PROGRESS, report))
        arguments = train, model, source, loss, plan, folder, report is not None, rest
        results = elastic_launch(config, work)(*arguments)
        weights = load_file(folder / WEIGHTS)
        for name, tensor in changing_tensors(model).items():
            copy_into(tensor, weights[name])
        model.eval()
        return next(result for result in results.values() if result is not None)


def work(
    train: Callable[..., Any],
    model: nn.Module,
    source: object,
    loss: Loss,
    plan: Plan,
    folder: Path,
    reports: bool,
    rest: Mapping[str, object],
) -> Any:
    """What each process does: join the group, train, let the first process leave the weights."""
    cuda = torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(local)
        model = model.to(torch.device("cuda", local))
    else:
        model = copy.deepcopy(model)  # what arrives is one memory that all processes share
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // plan.processes))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        dist.barrier()  # every process has its copy before the first one trains
        report = FileReport(folder / PROGRESS) if reports else None
        result = train(model, source, loss, plan=plan, scratch=folder, report=report, **rest)
        weights = {n: whole(t.detach()).cpu() for n, t in changing_tensors(model).items()}
        if local == 0:
            save_file(weights, folder / WEIGHTS)
        return result if local == 0 else None
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def fresh_meeting_point() -> Iterator[None]:
    """Let each restart of the group meet in a new store.

    torch 2.13 keeps one store over all restarts and clears nothing in it, so a restarted process
    may read the address of one that is dead ("connection refused").
    """
    name = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


@dataclasses.dataclass(frozen=True)
class FileReport:
    """Progress of another process, left in a file for the one that started it."""

    path: Path

    def __call__(self, done: int, total: int, /, **values: float | str) -> None:
        write_json(self.path, {"done": done, "total": total, "values": values})


@contextlib.contextmanager
def relayed(path: Path, report: Callable[..., object]) -> Iterator[None]:
    """Pass on what the first process reports, twice a second, while the block runs."""
    over = threading.Event()
    path.unlink(missing_ok=True)

    def pass_on() -> None:
        last: object = None
        while True:
            ended = over.wait(0.5)
            if path.is_file():
                now = cast(dict[str, Any], read_json(path))
                if now != last:
                    report(now["done"], now["total"], **now["values"])
                last = now
            if ended:
                return

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
