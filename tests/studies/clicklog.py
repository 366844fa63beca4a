"""A click log in memory with the reading side of Clicks: fields, numbers, sequences, folds."""

import numpy as np

from lib.data.clicks import ClickRows, Layout

SIZES = (10, 6)
N_TOKENS = 9


class Log:
    """Clicks follow the first field and the first number; ``folds`` 0: a published split."""

    def __init__(self, n=600, seed=1, folds=3, sequence=True, test_labels=False):
        rng = np.random.default_rng(seed)
        local = np.stack([rng.integers(0, size, n) for size in SIZES], axis=1)
        self.offsets = np.array([0, SIZES[0]])
        self.categorical = (local + self.offsets).astype(np.int32)
        self.numeric = rng.standard_normal((n, 3)).astype(np.float32)
        self.missing = (rng.random((n, 1)) < 0.1).astype(np.uint8)
        logit = np.where(local[:, 0] < 3, 0.5, -2.5) + self.numeric[:, 0]
        self.p = 1 / (1 + np.exp(-logit))
        self.label = (rng.random(n) < self.p).astype(np.int8)
        part = np.arange(n) % 10
        self.split = np.select([part < 7, part < 9], [0, 1], 2).astype(np.uint8)
        if not test_labels:
            self.label[self.split == 2] = -1
        fold = np.arange(n) % max(folds, 1)
        self.fold = np.where((self.split == 0) & (folds > 0), fold, -1).astype(np.int16)
        self.group = np.zeros(n, np.int32)
        self.lengths = rng.integers(0, 7, n)
        self.tokens = rng.integers(2, N_TOKENS, (n, 8)).astype(np.uint16)
        self.layout = Layout(
            fields=("slot", "ad"),
            field_sizes=SIZES,
            numeric_names=("x1", "x2", "x3"),
            missing_names=("missing_1",),
            n_tokens=N_TOKENS if sequence else 0,
        )
        self.fields, self.field_sizes = ["slot", "ad"], np.array(SIZES)
        self.field_offsets, self.n_ids = self.offsets, sum(SIZES)

    def __len__(self):
        return len(self.label)

    def rows(self, split=None):
        if split is None:
            return np.arange(len(self))
        return np.flatnonzero(self.split == ("train", "valid", "test").index(split))

    def take(self, rows, *, max_len=None):
        rows = np.asarray(rows, np.int64)
        lengths = np.minimum(self.lengths[rows], max_len or 8)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        kept = [self.tokens[row, :n] for row, n in zip(rows, lengths, strict=True)]
        tokens = np.concatenate(kept) if kept else np.zeros(0, np.uint16)
        return ClickRows(
            index=rows,
            categorical=self.categorical[rows],
            numeric=self.numeric[rows],
            missing=self.missing[rows],
            label=self.label[rows],
            fold=self.fold[rows],
            group=self.group[rows],
            split=self.split[rows],
            sequence=(offsets, tokens) if self.layout.n_tokens else None,
        )
