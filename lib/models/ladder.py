"""One door to every click model: a name, the data's sizes, and plain parameters.

    build_click_model("dcnv2", sizes, {"d_embedding": 16, "n_cross": 3, "hidden": [256, 128], …})

Parameters are the fields of the model's config in one flat mapping: those of its embedding
(``d_embedding``, ``numeric``, ``std``, ``lazy``) and, for qnn and low_rank_fm, of its head stand
beside the model's own.  Lists may stand for tuples.  Three keys hold a mapping of their own:
``numeric`` (or just its kind, "periodic"), ``gen``, and dare's ``head`` with a ``kind``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, Literal, Protocol, TypeVar, cast, get_args

from torch import nn

from lib.models.dare_click import DAREClick, DAREClickConfig, MLPHeadConfig
from lib.models.dare_config import DAREConfig
from lib.models.dcnv2 import DCNv2, DCNv2Config
from lib.models.deepfm import DeepFM, DeepFMConfig
from lib.models.din import DIN, DINConfig
from lib.models.fields import EmbeddingConfig, Sizes
from lib.models.ft_transformer import FTTransformer, FTTransformerConfig
from lib.models.gen import GENConfig
from lib.models.low_rank_fm import LowRankFM, LowRankFMConfig, LowRankFMHeadConfig
from lib.models.numeric import NumericConfig
from lib.models.qnn import QNNAlpha, QNNConfig, QNNHeadConfig
from lib.models.two_tower import TwoTower, TwoTowerConfig
from lib.models.xdeepfm import XDeepFM, XDeepFMConfig

__all__ = ["ClickModelKind", "build_click_model", "parse_config", "sizes_of"]

ClickModelKind = Literal[
    "deepfm", "dcnv2", "xdeepfm", "ft_transformer", "din", "two_tower", "dare", "qnn", "low_rank_fm"
]
T = TypeVar("T")
Raw = Mapping[str, object]

PLAIN: dict[str, tuple[Callable[[Any], nn.Module], type]] = {
    "deepfm": (DeepFM, DeepFMConfig),
    "dcnv2": (DCNv2, DCNv2Config),
    "xdeepfm": (XDeepFM, XDeepFMConfig),
    "ft_transformer": (FTTransformer, FTTransformerConfig),
    "din": (DIN, DINConfig),
    "two_tower": (TwoTower, TwoTowerConfig),
}
HEADS: dict[str, type] = {
    "mlp": MLPHeadConfig,
    "qnn": QNNHeadConfig,
    "low_rank_fm": LowRankFMHeadConfig,
}


class ClickLayout(Protocol):
    """What the description of a click dataset tells about its columns."""

    @property
    def field_sizes(self) -> Sequence[int]: ...
    @property
    def numeric_names(self) -> Sequence[str]: ...
    @property
    def missing_names(self) -> Sequence[str]: ...
    @property
    def n_tokens(self) -> int: ...


def sizes_of(layout: ClickLayout, *, max_len: int = 0) -> Sizes:
    """Sizes for a model from a dataset's layout; ``max_len`` 0 leaves the sequence out."""
    field_sizes = tuple(int(size) for size in layout.field_sizes)
    if max_len and not layout.n_tokens:
        raise ValueError(f"max_len={max_len}, but this dataset has no sequence (n_tokens=0)")
    return Sizes(
        n_ids=sum(field_sizes),
        n_fields=len(field_sizes),
        n_numeric=len(layout.numeric_names),
        n_missing=len(layout.missing_names),
        n_tokens=layout.n_tokens if max_len else 0,
        max_len=max_len,
        field_offsets=tuple(sum(field_sizes[:index]) for index in range(len(field_sizes))),
        field_sizes=field_sizes,
    )


def parse_config(cls: type[T], raw: Raw, *, source: str, **given: object) -> T:
    """Build a config from a mapping; an unknown or missing key is named.

    >>> parse_config(MLPHeadConfig, {"hidden": [8]}, source="demo.yaml")
    MLPHeadConfig(hidden=(8,), dropout=0.0)
    """
    described = fields(cast(Any, cls))
    known = [field.name for field in described if field.name not in given]
    for key in sorted(raw.keys() - set(known)):
        hint = get_close_matches(key, known, n=1) or sorted(known)
        raise ValueError(f"{source}: unknown parameter {key!r}. Did you mean {hint}?")
    needed = {
        field.name
        for field in described
        if field.default is MISSING and field.default_factory is MISSING
    }
    if absent := sorted(needed - raw.keys() - given.keys()):
        raise ValueError(f"{source}: missing parameters {absent}; they have no default")
    plain = {key: tuple(v) if isinstance(v, list) else v for key, v in raw.items()}
    return cls(**given, **plain)


def build_click_model(kind: ClickModelKind, sizes: Sizes, parameters: Raw) -> nn.Module:
    """The click model that ``kind`` names.  batch -> logits (B,)

    >>> sizes = Sizes(n_ids=9, n_fields=2)
    >>> model = build_click_model(
    ...     "deepfm", sizes, {"d_embedding": 4, "hidden": [8], "dropout": 0.1})
    >>> type(model).__name__
    'DeepFM'
    """
    if kind not in get_args(ClickModelKind):
        raise ValueError(
            f"unknown click model {kind!r}; expected one of {get_args(ClickModelKind)}"
        )
    source, rest = f"click model {kind!r}", dict(parameters)
    if kind in PLAIN:
        model, config = PLAIN[kind]
        _nest_gen(rest, source)
        known = (_names(config) | _names(EmbeddingConfig)) - {"embedding", "sizes"}
        _refuse_unknown(rest, known, source)
        embedding = _take_embedding(rest, source)
        return model(parse_config(config, rest, source=source, sizes=sizes, embedding=embedding))
    if kind == "dare":
        return _build_dare(sizes, rest, source)
    head = HEADS[kind]
    _refuse_unknown(rest, _names(head) | _names(EmbeddingConfig), source)
    embedding = _take_embedding(rest, source)
    if kind == "qnn":
        parsed = parse_config(QNNHeadConfig, rest, source=source)
        return QNNAlpha(QNNConfig(sizes=sizes, embedding=embedding, head=parsed))
    low_rank = parse_config(LowRankFMHeadConfig, rest, source=source)
    return LowRankFM(LowRankFMConfig(sizes=sizes, embedding=embedding, head=low_rank))


def _build_dare(sizes: Sizes, rest: dict[str, object], source: str) -> DAREClick:
    own = _names(DAREConfig) - {"sizes", "std"}  # ``std`` is the embedding's; tables keep theirs
    _refuse_unknown(rest, own | _names(EmbeddingConfig) | {"head", "auxiliary_hidden"}, source)
    raw_head = rest.pop("head", None)
    if not isinstance(raw_head, Mapping) or raw_head.get("kind") not in HEADS:
        raise ValueError(f"{source}: head={raw_head!r}, expected a mapping with kind "
                         f"{sorted(HEADS)} and that head's parameters")  # fmt: skip
    plain = {key: value for key, value in raw_head.items() if key != "kind"}
    head: object = parse_config(HEADS[raw_head["kind"]], plain, source=f"{source}, head")
    auxiliary = rest.pop("auxiliary_hidden", None)
    embedding = _take_embedding(rest, source)
    encoder = parse_config(DAREConfig, rest, source=source, sizes=sizes)
    hidden = None if auxiliary is None else tuple(cast(Sequence[int], auxiliary))
    return DAREClick(
        DAREClickConfig(
            encoder=encoder, embedding=embedding, head=cast(Any, head), auxiliary_hidden=hidden
        )
    )


def _names(cls: type) -> set[str]:
    return {field.name for field in fields(cls)}


def _refuse_unknown(raw: Raw, known: set[str], source: str) -> None:
    for key in sorted(raw.keys() - known):
        hint = get_close_matches(key, sorted(known), n=1) or sorted(known)
        raise ValueError(f"{source}: unknown parameter {key!r}. Did you mean {hint}?")


def _nest_gen(rest: dict[str, object], source: str) -> None:
    gen = rest.get("gen")
    if isinstance(gen, Mapping):
        rest["gen"] = parse_config(GENConfig, gen, source=f"{source}, gen")


def _take_embedding(rest: dict[str, object], source: str) -> EmbeddingConfig:
    raw = {key: rest.pop(key) for key in sorted(_names(EmbeddingConfig)) if key in rest}
    numeric = raw.get("numeric", {})
    if isinstance(numeric, str):
        numeric = {"kind": numeric}
    if isinstance(numeric, Mapping):
        raw["numeric"] = parse_config(NumericConfig, numeric, source=f"{source}, numeric")
    return parse_config(EmbeddingConfig, raw, source=source)
