"""Batches of texts by length, and what is measured of a language model on them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.data.files import write_atomic
from lib.data.histories import Histories
from lib.evaluate.uncertainty import Interval, bootstrap_mean
from lib.language.backbone import Backbone, hidden_states
from lib.language.collaborative import TitleTokens, join_history
from lib.language.contrast import mean_pool
from lib.language.embed import embed_tokens, embedding_key
from lib.language.generate import Trie, write_titles, write_titles_from_catalogue
from lib.language.masked import masked_guesses
from lib.language.tokens import budget_batches, tokenise
from lib.studies.sequences import sample_targets
from lib.train.orders import make_generator, shuffled_order
from lib.train.precision import choose_precision
from lib.train.sources import share_of

__all__ = [
    "TextSource",
    "count_labels",
    "embed_titles",
    "guess_rate",
    "loss_on",
    "nearest_titles",
    "retrieve_by_writing",
    "two_views",
    "write_next_titles",
]

Batch = dict[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]


class Texts(Protocol):
    """What a stage gives: the length of each training text, and batches of them."""

    lengths: NDArray[np.int64]

    def batch(self, indices: NDArray[np.int64], generator: torch.Generator) -> Batch: ...


class TextSource:
    """Batches by a budget of tokens (texts of like length together) or by a number of rows (mixed).

    Order and random choices inside a batch depend on seed, epoch and place only, so that a resumed
    run sees the same batches.
    """

    def __init__(
        self,
        texts: Texts,
        *,
        budget: int | None = None,
        rows: int | None = None,
        seed: int,
        shuffle: bool = True,
        device: str = "cpu",
    ) -> None:
        if (budget is None) == (rows is None):
            raise ValueError(f"budget={budget}, rows={rows}: exactly one says how large a batch is")
        if not len(texts.lengths):
            raise ValueError("no text to learn from is left; loosen the filters before this step")
        self.texts, self.budget, self.rows = texts, budget, rows
        self.seed, self.shuffle, self.device = seed, shuffle, device
        self.members = self._members()

    def __len__(self) -> int:
        return len(self.members)

    def batches(self, epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        order = list(range(len(self)))
        if self.shuffle:
            order = shuffled_order(len(self), self.seed, epoch + 1).tolist()
        for index in range(start, len(self)):
            rows = share_of(torch.from_numpy(self.members[order[index]]), rank, world).numpy()
            batch = self.texts.batch(rows, make_generator(self.seed, epoch, index, rank))
            yield {name: part.to(self.device) for name, part in batch.items()}

    def _members(self) -> list[NDArray[np.int64]]:
        """Who shares a batch: drawn once, so that every epoch has equally many batches."""
        n = len(self.texts.lengths)
        order = shuffled_order(n, self.seed, 0).numpy() if self.shuffle else np.arange(n)
        if self.rows is not None:
            return [order[i : i + self.rows] for i in range(0, n, self.rows)]
        assert self.budget is not None
        # Stable sort by length after the shuffle: texts of one length meet by chance.
        return [order[rows] for rows in budget_batches(self.texts.lengths[order], self.budget)]


def count_labels(batch: Mapping[str, Tensor]) -> Tensor:
    """Over how many tokens the loss of a batch is a mean; -100 marks what is not predicted."""
    return (batch["labels"] != -100).sum()


@torch.no_grad()
def loss_on(
    model: nn.Module,
    *,
    source: TextSource,
    loss: Loss,
    count: Callable[[Batch], Tensor] | None = None,
    training_mode: bool = False,
) -> dict[str, float]:
    """The loss over a whole source, weighted by ``count`` (rows without it).

    ``training_mode`` keeps dropout on: a contrast of two readings has no loss without it.
    """
    was_training = model.training
    model.train(training_mode)
    total, weight = 0.0, 0.0
    for batch in source.batches(0):
        n = float(count(batch)) if count else float(len(next(iter(batch.values()))))
        total += float(loss(model, batch)) * n
        weight += n
    model.train(was_training)
    return {"loss": total / max(weight, 1.0)}


@torch.no_grad()
def guess_rate(model: nn.Module, *, source: TextSource) -> Interval:
    """Share of hidden tokens that are guessed right."""
    was_training = model.training
    model.eval()
    right = torch.cat([masked_guesses(model, batch).cpu() for batch in source.batches(0)])
    model.train(was_training)
    return bootstrap_mean(right.double().numpy())


@torch.no_grad()
def two_views(
    model: nn.Module, *, source: TextSource
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two readings of every text under dropout.  -> (N, D), (N, D)"""
    was_training = model.training
    model.train()
    torch.manual_seed(0)  # the same masks before and after training
    views: tuple[list[Tensor], list[Tensor]] = ([], [])
    for batch in source.batches(0):
        for view in views:
            states = hidden_states(model, batch["ids"], batch["mask"])
            view.append(mean_pool(states, batch["mask"]).cpu())
    model.train(was_training)
    return tuple(torch.cat(view).numpy() for view in views)  # type: ignore[return-value]


def write_next_titles(
    backbone: Backbone,
    histories: Histories,
    tokens: TitleTokens,
    *,
    n: int,
    max_items: int,
    seed: int,
) -> pl.DataFrame:
    """Validation users with their last titles, the title that came next, and what was written."""
    chosen = sample_targets(histories.targets["valid"], n, seed=seed)
    history, lengths = histories.windows(chosen.users, chosen.positions, max_items)
    prompts = _prompts(history, lengths, tokens, backbone.model.device)
    longest = int(tokens.ending.lengths.max())
    return pl.DataFrame(
        {
            "last bought": [
                " · ".join(histories.titles[i] for i in row[:length][-3:])
                for row, length in zip(history, lengths, strict=True)
            ],
            "came next": [histories.titles[i] for i in histories.target_items(chosen)],
            "written": write_titles(backbone, prompts, max_tokens=longest),
        }
    )


def retrieve_by_writing(
    backbone: Backbone,
    histories: Histories,
    tokens: TitleTokens,
    *,
    n: int,
    max_items: int,
    beams: int,
    seed: int,
) -> Interval:
    """Share of validation users whose next title is among the beams written from the catalogue."""
    chosen = sample_targets(histories.targets["valid"], n, seed=seed)
    history, lengths = histories.windows(chosen.users, chosen.positions, max_items)
    trie = Trie(tokens.ending)
    longest = int(tokens.ending.lengths.max())
    lists = write_titles_from_catalogue(
        backbone, _prompts(history, lengths, tokens, backbone.model.device), trie,
        n_beams=beams, max_tokens=longest,
    )  # fmt: skip
    wanted = [trie.rows[tuple(tokens.ending[i].tolist())] for i in histories.target_items(chosen)]
    hits = [float(item in written) for item, written in zip(wanted, lists, strict=True)]
    return bootstrap_mean(hits)


def embed_titles(
    backbone: Backbone,
    titles: Sequence[str],
    *,
    max_tokens: int,
    token_budget: int,
    attention: str,
    cache: Path,
    device: str = "cpu",
    words: bool = False,
) -> NDArray[np.float32]:
    """One vector per title, read back where weights, titles and what is read are the same."""
    texts = tokenise(backbone.tokenizer, titles, max_tokens=max_tokens)
    model = backbone.model.to(device)
    place = cache / f"{embedding_key(model, texts, attention, words)}.npy"
    if place.exists():
        return cast(NDArray[np.float32], np.load(place, allow_pickle=False))
    precision = choose_precision("auto", torch.device(device), model)
    vectors = embed_tokens(
        model,
        texts,
        token_budget=token_budget,
        pad_id=backbone.pad_id,
        precision=getattr(torch, precision),
        words=words,
    )
    write_atomic(place, lambda file: np.save(file, vectors))
    return vectors


def nearest_titles(
    vectors: NDArray[np.float32], titles: Sequence[str], *, n: int, k: int, seed: int
) -> pl.DataFrame:
    """A few items with the titles nearest to theirs by cosine."""
    named = np.flatnonzero([bool(title.strip()) for title in titles])
    unit = vectors[named] / np.linalg.norm(vectors[named], axis=1, keepdims=True).clip(1e-12)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(named))[:n])
    cosines = unit[chosen] @ unit.T
    cosines[np.arange(len(chosen)), chosen] = -2
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    lines = []
    for row, near in zip(chosen, order, strict=True):
        line = {"title": titles[named[row]]}
        line |= {f"nearest {place}": titles[named[item]] for place, item in enumerate(near, 1)}
        lines.append(line)
    return pl.DataFrame(lines)


def _prompts(
    history: NDArray[np.int32],
    lengths: NDArray[np.int32],
    tokens: TitleTokens,
    device: torch.device,
) -> list[Tensor]:
    make = partial(torch.tensor, device=device)
    return [
        make(join_history(row[:length], tokens).astype(np.int64))
        for row, length in zip(history, lengths, strict=True)
    ]
