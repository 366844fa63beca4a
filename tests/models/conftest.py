"""Batches for the click models: every key that any of them reads."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lib.models.fields import Sizes

FIELD_SIZES = (4, 6, 3)
Batches = Callable[..., dict[str, Tensor]]


@pytest.fixture
def sizes() -> Sizes:
    return Sizes(
        n_ids=13,
        n_fields=3,
        n_numeric=2,
        n_missing=1,
        n_tokens=11,
        max_len=6,
        field_offsets=(0, 4, 10),
        field_sizes=FIELD_SIZES,
    )


@pytest.fixture
def make_batch(generator: torch.Generator) -> Batches:
    """Rows with histories of any length, the first empty, the second full."""

    def make(n_rows: int, *, length: int = 6, dtype: torch.dtype = torch.float32) -> dict:
        def integers(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator)

        lengths = integers(0, length + 1, n_rows)
        lengths[:2] = torch.tensor([0, length])[:n_rows]
        tokens = integers(1, 11, n_rows, length)
        tokens[torch.arange(length) >= lengths[:, None]] = 0
        offsets = torch.tensor([0, 4, 10])
        local = torch.stack([integers(0, size, n_rows) for size in FIELD_SIZES], dim=1)
        return {
            "categorical": (local + offsets).int(),
            "numeric": torch.randn(n_rows, 2, generator=generator, dtype=dtype),
            "missing": integers(0, 2, n_rows, 1).to(torch.uint8),
            "sequence": tokens.int(),
            "length": lengths.int(),
        }

    return make
