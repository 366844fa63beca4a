"""The one shared fixture of these tests."""

import numpy as np
import pytest


@pytest.fixture
def generator():
    return np.random.default_rng(20_261_120)
