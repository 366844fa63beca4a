"""What all tests share: one source of randomness and the way to the real data."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def generator() -> "torch.Generator":
    import torch  # 2 s, which tests of the frame need not wait for

    return torch.Generator().manual_seed(20261120)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout, which the project may read and must not contain."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data is not here: expected the folder ../shared/data beside the checkout")
    return folder
