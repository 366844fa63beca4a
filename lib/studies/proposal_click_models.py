"""The networks of a proposed click report, and how their sizes follow from the size of the log."""

from dataclasses import dataclass
from itertools import pairwise

from lib.studies.proposal_clicks import ClickLook
from lib.studies.proposal_convert import field_names
from lib.studies.proposal_text import PlannedNode

__all__ = ["FOLDS", "LARGE", "SMALL", "Size", "dare", "dcnv2", "deepfm", "din", "ft_transformer",
           "size_of", "xdeepfm"]  # fmt: skip

SMALL, LARGE = 10_000, 1_000_000  # training rows
PASSES = 3_000_000  # rows that a network sees in all: more passes over few rows, fewer over many
FOLDS = 3


@dataclass(frozen=True, slots=True)
class Size:
    """What the sizes of models follow from."""

    rows: int  # training rows
    judged: int
    fields: int
    numbers: int
    ids: int
    folds: int
    max_len: int  # newest events read; 0: no sequence

    @property
    def is_small(self) -> bool:
        return self.rows < SMALL

    @property
    def width(self) -> int:
        """Of an embedding."""
        return 4 if self.is_small else 8 if self.rows < 100_000 else 16

    @property
    def hidden(self) -> list[int]:
        return [32] if self.is_small else [64, 32] if self.rows < 100_000 else [256, 128]

    @property
    def batch(self) -> int:
        """A hundred steps a pass or more: a power of two below a hundredth of the rows."""
        return max(
            64, min(8192, 1 << (self.rows // 100).bit_length() - 1 if self.rows > 200 else 64)
        )

    @property
    def epochs(self) -> int:
        return max(2, min(15, round(PASSES / max(self.rows, 1))))

    @property
    def inputs(self) -> int:
        """Width of what the networks read."""
        return (self.fields + self.numbers) * self.width


def size_of(look: ClickLook) -> Size:
    used = [use for use in look.uses if use.use in ("category", "number")]
    fields = [use for use in used if use.use == "category"]
    sequence = [use.column for use in look.uses if use.use == "sequence"]
    return Size(
        rows=look.rows["train"],
        judged=look.rows["valid"] + look.rows["test"],
        fields=len(fields) + len(look.clock),
        numbers=len(used) - len(fields),
        ids=sum(use.column.distinct for use in fields),
        folds=FOLDS if sequence else 1,
        max_len=50 if sequence else 0,
    )


def network(
    size: Size, name: str, notebook: str, why: str, own: dict[str, object], multiplications: float,
    baseline: str, reasons: dict[str, str] | None = None, more_inputs: dict[str, str] | None = None,
) -> PlannedNode:  # fmt: skip
    """A network with the plan that all of them share."""
    training = {
        "batch": size.batch, "learning_rate": 2.0e-3, "weight_decay": 0.01, "schedule": "cosine",
        "warmup": 0.1, "epochs": size.epochs, "patience": 2,
    }  # fmt: skip
    inputs = {"clicks": "clicks/clicks", **({"baseline": f"{baseline}/rung"} if baseline else {})}
    variants = own.pop("variants", None)
    params = {**own, "loss": "plain", "training": training}
    params |= {"variants": variants} if variants else {}
    return PlannedNode(
        name=name, notebook=notebook, why=why, inputs={**inputs, **(more_inputs or {})},
        params={**params, "drop": []},
        reasons={
            "training": f"at most {size.epochs} passes; two without gain end it",
            "loss": "true probabilities; weighted suits very rare clicks", **(reasons or {}),
        },
        work=size.rows * size.folds * size.epochs * multiplications,
        memory_gb=1 + 3 * 4e-9 * size.ids * size.width + 2e-8 * size.batch * multiplications**0.5,
    )  # fmt: skip


def mlp(size: Size, inputs: int) -> int:
    widths = [inputs, *size.hidden, 1]
    return sum(a * b for a, b in pairwise(widths))


def deepfm(size: Size) -> PlannedNode:
    own: dict[str, object] = {
        "d_embedding": size.width, "hidden": size.hidden, "dropout": 0.2,
        "variants": {"DeepFM": {"kind": "deepfm", "maps": None}},
    }  # fmt: skip
    why = "DeepFM: the smallest network that pairs fields."
    reasons = {"d_embedding": f"for {size.rows:,} training rows"}
    cost = mlp(size, size.inputs) + 2 * size.inputs
    return network(size, "deepfm", "53_train_xdeepfm", why, own, cost, "gbdt", reasons)


def dcnv2(size: Size) -> PlannedNode:
    own: dict[str, object] = {
        "d_embedding": size.width, "n_cross": 2, "hidden": size.hidden, "dropout": 0.2,
        "variants": {"DCNv2": {}},
    }  # fmt: skip
    why = "DCN V2: products of fields, learnt layer by layer."
    cost = mlp(size, size.inputs) + 2 * size.inputs**2
    return network(size, "dcnv2", "51_train_dcnv2", why, own, cost, "gbdt")


def xdeepfm(size: Size) -> PlannedNode:
    maps = [8, 8] if size.rows < 100_000 else [16, 16]
    n = size.fields + size.numbers
    own: dict[str, object] = {
        "d_embedding": size.width, "maps": maps, "hidden": size.hidden, "dropout": 0.2,
    }  # fmt: skip
    why = "xDeepFM: products of whole fields (CIN)."
    cost = mlp(size, size.inputs) + size.width * n * (maps[0] * n + maps[1] * maps[0])
    return network(size, "xdeepfm", "53_train_xdeepfm", why, own, cost, "dcnv2")


def ft_transformer(size: Size) -> PlannedNode:
    width, tokens = 16, size.fields + size.numbers + 1
    own: dict[str, object] = {"d_block": width, "n_blocks": 2, "n_heads": 2}
    why = "FT-Transformer: attention between the fields of a row."
    cost = 2 * tokens * (12 * width**2 + 2 * tokens * width)
    return network(size, "ft_transformer", "54_train_ft_transformer", why, own, cost, "dcnv2")


def din(look: ClickLook, size: Size, baseline: str) -> PlannedNode:
    own: dict[str, object] = {
        "d_embedding": size.width, "attention_hidden": [16], "hidden": size.hidden,
        "target": target_of(look), "max_len": size.max_len, "variants": {"DIN": {}},
    }  # fmt: skip
    why = "DIN: the history, seen from what is shown."
    told = {"target": "the item" if look.item else "no item is known: the field of most values"}
    cost = mlp(size, size.inputs + size.width) + size.max_len * size.width * 48
    return network(size, "din", "55_train_din", why, own, cost, baseline, told)


def target_of(look: ClickLook) -> str:
    """The item, else the field of most values."""
    names = field_names(look)
    fields = [use.column for use in look.uses if use.use == "category"]
    return names[look.item or max(fields, key=lambda column: column.distinct).name]


def dare(look: ClickLook, size: Size, baseline: str) -> PlannedNode:
    target = target_of(look)  # S1 asks for the first of two fields only
    encoder = {"d_attention": 8, "d_representation": 8, "d_time": 4, "top_k": 20, "tau": 20.0,
               "query_mode": "S1", "query_fields": [target, target]}  # fmt: skip
    own: dict[str, object] = {
        "max_len": size.max_len, "encoder": encoder, "d_embedding": size.width, "covisits": False,
        "variants": {"DARE + QNN-α": {}},
    }  # fmt: skip
    why = "DARE: one table searches the history, another describes it."
    inputs = {"din": "din/rung"} | ({"dcnv2": "dcnv2/rung"} if baseline == "dcnv2" else {})
    cost = mlp(size, size.inputs) + size.max_len * size.width * 64
    return network(size, "dare", "60_train_dare_qnn", why, own, cost, "", more_inputs=inputs)
