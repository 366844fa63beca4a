"""Texts to token ids once, then batches by index: no tokenizer inside a training loop."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast as Tokenizer

__all__ = ["TokenTable", "budget_batches", "pad_rows", "tokenise", "train_tokenizer"]

END = "<|endoftext|>"


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many texts in one array: text ``i`` is ``ids[offsets[i]:offsets[i + 1]]``."""

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int] | NDArray[np.int32]]) -> "TokenTable":
        """
        >>> TokenTable.from_rows([[1, 2], [], [3]]).lengths.tolist()
        [2, 0, 1]
        """
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        lengths = np.array([0, *map(len, arrays)], dtype=np.int64)
        ids = np.concatenate(arrays) if arrays else np.empty(0, np.int32)
        return cls(np.cumsum(lengths), ids.astype(np.int32))


def tokenise(tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int) -> TokenTable:
    """Token ids without special tokens; longer texts keep their first ``max_tokens``."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()  # a saved padding setting would stretch every title to the longest
    backend.no_truncation()
    encoded = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return TokenTable.from_rows(code.ids[:max_tokens] for code in encoded)


def pad_rows(rows: Sequence[NDArray[np.int32]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids and their mask.  list of (L_i,) -> (B, L), (B, L)

    >>> pad_rows([np.array([5, 6]), np.array([7])], pad_id=0)[0].tolist()
    [[5, 6], [7, 0]]
    """
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(max(1, lengths.max(initial=0)))[None, :] < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(rows) if len(rows) else []
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def budget_batches(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Rows in order of length, as many to a batch as fit ``budget`` tokens with padding.

    >>> [rows.tolist() for rows in budget_batches(np.array([5, 1, 2, 2]), budget=6)]
    [[1, 2, 3], [0]]
    """
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start = 0
    for stop in range(1, len(order) + 1):
        is_last = stop == len(order)
        if is_last or (stop + 1 - start) * lengths[order[stop]] > budget:
            batches.append(order[start:stop])
            start = stop
    return batches


def train_tokenizer(texts: Iterable[str], *, n_tokens: int) -> Tokenizer:
    """A byte-level BPE tokenizer of the GPT-2 and Qwen kind, learnt from ``texts``.

    Bytes are the base alphabet, so every string has tokens and none is unknown.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if n_tokens < 257:
        raise ValueError(f"n_tokens={n_tokens}: expected 257 or more (256 bytes and {END})")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(tokenizer_object=backend, eos_token=END, pad_token=END)
