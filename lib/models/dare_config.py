"""The sizes and choices of DARE; the model is in lib/models/dare.py."""

from dataclasses import dataclass
from typing import Literal, get_args

from lib.models.fields import Sizes

__all__ = ["DAREConfig", "QueryMode"]

QueryMode = Literal["S1", "S2", "concat", "token"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DAREConfig:
    """``query_fields``: columns of S1 (ad set) and S2 (inventory).  ``average``: over all events,
    as the paper, or the kept.  ``shared_table``: the ablation, one table for both uses."""

    sizes: Sizes
    d_attention: int
    d_representation: int
    d_time: int
    top_k: int
    tau: float | None
    query_mode: QueryMode
    query_fields: tuple[int, ...] = ()
    n_time: int = 16
    average: Literal["all", "kept"] = "all"
    shared_table: bool = False
    n_blocks: int = 0
    n_heads: int = 4
    d_block_hidden: int = 128
    block_dropout: float = 0.0
    dropout: float = 0.0  # on the features
    std: float = 0.05

    def __post_init__(self) -> None:
        if self.query_mode not in get_args(QueryMode):
            raise ValueError(f"query_mode={self.query_mode!r}: expected one of "
                             f"{get_args(QueryMode)}")  # fmt: skip
        if self.sizes.n_tokens < 2 or self.top_k < 1 or self.n_time < 3:
            raise ValueError(f"n_tokens={self.sizes.n_tokens} must be 2 or more, top_k="
                             f"{self.top_k} 1 or more, n_time={self.n_time} 3 or more")  # fmt: skip
        if self.tau is not None and self.tau <= 0:
            raise ValueError(f"tau={self.tau}: expected above zero, or None for no recency")
        if self.shared_table and self.d_attention != self.d_representation:
            raise ValueError(f"shared_table needs d_attention={self.d_attention} equal to "
                             f"d_representation={self.d_representation}")  # fmt: skip
        if self.query_mode != "token":
            self._check_query_fields()

    def _check_query_fields(self) -> None:
        if len(self.query_fields) != 2:
            raise ValueError(f"query_fields={self.query_fields}: expected two columns, the ad set "
                             "(S1) and the inventory (S2)")  # fmt: skip
        if not set(self.query_fields) <= set(range(self.sizes.n_fields)):
            raise ValueError(f"query_fields={self.query_fields}: expected columns from 0 to "
                             f"{self.sizes.n_fields - 1}")  # fmt: skip
        if not self.sizes.field_sizes or not self.sizes.field_offsets:
            raise ValueError("a query field needs sizes.field_offsets and sizes.field_sizes")

    @property
    def n_dims(self) -> int:
        """Width of one content vector: token and time."""
        return self.d_representation + self.d_time
