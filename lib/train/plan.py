"""What a training run is: one frozen record of plain values, printed in reports and hashed in keys.

``Plan.from_params(params)`` picks the fields of a plan out of a notebook's parameters by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

__all__ = ["Group", "Plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Parameters whose name contains ``match`` get their own learning rate and decay."""

    match: str
    learning_rate: float
    weight_decay: float | None = None  # None: the plan's


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All settings of one training run. Exactly one of ``epochs`` and ``steps`` is given."""

    learning_rate: float
    seed: int
    epochs: int | None = None
    steps: int | None = None  # optimizer steps
    batch: int | None = None  # rows or tokens per batch; None: the source decides

    # AdamW for everything that is not a lazy Table
    weight_decay: float = 0.0  # never on biases, norms and other vectors
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    groups: tuple[Group, ...] = ()
    tables: Literal["lazy_adam", "row_adagrad"] = "lazy_adam"
    table_learning_rate: float | None = None  # None: learning_rate
    table_decay: float = 0.0  # decoupled, on touched rows only

    schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    warmup: float = 0.0  # share of all steps, rising linearly from zero
    final_share: float = 0.0  # of the learning rate, reached at the end of linear and cosine
    plateau_factor: float = 0.1  # learning rate times this when the metric stops improving
    clip: float | None = None  # largest gradient norm
    accumulate: int = 1  # batches per optimizer step
    precision: Literal["auto", "bfloat16", "float32"] = "auto"

    average: float = 0.0  # decay of the exponential average of weights; 0 is off
    judged: Literal["averaged", "plain", "both"] = "averaged"  # what is validated when averaging
    metric: str | None = None  # name in validate()'s answer that decides; None: keep the last
    better: Literal["higher", "lower"] = "higher"
    patience: int | None = None  # validations without a better metric before stopping
    validate_every: int | None = None  # optimizer steps; None: after each epoch

    checkpoint_every: int | None = None  # optimizer steps, besides each validation
    checkpoint_seconds: float = 60.0  # and whenever this much time has passed

    fused: bool = True  # torch's fused AdamW
    compile: bool = False  # torch.compile on the model's forward
    gradient_checkpointing: bool = False  # recompute activations; the model must offer it

    processes: int = 1  # on this machine
    machines: int = 1
    rendezvous: str = ""  # host:port all machines can reach; needed for more than one
    restarts: int = 0  # how often a dead process may bring the group back from its checkpoint
    sharding: Literal["replicate", "shard"] = "replicate"  # DistributedDataParallel or FSDP2

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"epochs={self.epochs}, steps={self.steps}: exactly one of them must be given"
            )
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value} must be above zero")
        for name in SHARES:
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value} must be at least 0 and below 1")
        if self.metric is None and (self.patience is not None or self.schedule == "plateau"):
            raise ValueError(
                f"patience={self.patience}, schedule={self.schedule!r} need a metric that decides; "
                "name it in `metric`, and its direction in `better`"
            )
        if self.machines > 1 and not self.rendezvous:
            raise ValueError(
                f"machines={self.machines} need rendezvous='host:port' that each of them can reach"
            )

    @classmethod
    def from_params(cls, params: Mapping[str, object], **fixed: object) -> "Plan":
        """A plan from the entries of ``params`` that are fields of a plan; ``fixed`` win.

        >>> Plan.from_params({"epochs": 2, "learning_rate": 1e-3, "dropout": 0.1}, seed=1).epochs
        2
        """
        names = {field.name for field in fields(cls)}
        unknown = fixed.keys() - names
        if unknown:
            raise ValueError(f"{sorted(unknown)} are not fields of Plan; expected {sorted(names)}")
        chosen = {name: value for name, value in params.items() if name in names} | fixed
        groups = cast(Sequence[Group | Mapping[str, Any]], chosen.get("groups", ()))
        chosen["groups"] = tuple(g if isinstance(g, Group) else Group(**g) for g in groups)
        return cls(**chosen)  # type: ignore[arg-type]


POSITIVE = (
    *("learning_rate", "epochs", "steps", "batch", "table_learning_rate", "clip", "accumulate"),
    *("patience", "validate_every", "checkpoint_every", "processes", "machines", "epsilon"),
)
SHARES = ("warmup", "average", "beta1", "beta2", "plateau_factor")
