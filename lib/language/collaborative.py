"""Collaborative supervised fine-tuning (CSFT), stage 1 of LLM2Rec (He et al., KDD 2025).

    "title of i_1, title of i_2, …, title of i_T"  →  "title of i_{T+1}\\n<end>"

A plain causal loss on the target's tokens only; no instruction, as in the paper.

NOTE[DIFF] Each title is tokenised with its own separator (", title") and the pieces are joined,
where the official code tokenises the joined string.  The ids differ only where a title ends in
punctuation; in return every title is tokenised once, in training and in serving alike.

Histories of one user share their prefix: with at most ``max_items`` titles of history, all of the
user's targets hang as branches on one stream of titles (a tree of attention), which costs the sum
of the titles twice instead of once per target.

    stream    A  , B  , C          branch of B sees A; branch of C sees A, B; …
    branches     B$   C$   D$      no branch sees another
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from lib.language.backbone import hidden_states, trunk_of
from lib.language.pretrain import Criterion
from lib.language.tokens import TokenTable, pad_rows, tokenise

__all__ = [
    "NextTitles",
    "TitleTokens",
    "join_history",
    "next_title_loss",
    "plan_branches",
    "tokenise_titles",
]

UNTITLED = "untitled item"
SEPARATOR = ", "


@dataclass(frozen=True)
class TitleTokens:
    """Every title as the first of a prompt, as a later one, and as a target with its end."""

    first: TokenTable
    later: TokenTable
    ending: TokenTable
    untitled: NDArray[np.bool_]  # may stand in a prompt, but is never a target


def tokenise_titles(
    tokenizer: Tokenizer, titles: Sequence[str], *, max_tokens: int, prefix: str = ""
) -> TitleTokens:
    """Tokenise all titles; row 0 belongs to the padding item.

    ``prefix`` is the instruction in front of a prompt; the paper's form has none.
    """
    untitled = np.array([not title.strip() for title in titles])
    named = [title if title.strip() else UNTITLED for title in titles]
    eos = int(tokenizer.eos_token_id)
    newline = tokenise(tokenizer, ["\n"], max_tokens=8).ids.tolist()
    plain = tokenise(tokenizer, named, max_tokens=max_tokens)
    opening = tokenise(tokenizer, [prefix], max_tokens=max_tokens).ids
    first = TokenTable.from_rows(np.concatenate([opening, plain[row]]) for row in range(len(plain)))
    later = tokenise(tokenizer, [SEPARATOR + title for title in named], max_tokens=max_tokens + 2)
    ending = TokenTable.from_rows([*plain[row], *newline, eos] for row in range(len(plain)))
    return TitleTokens(first, later, ending, untitled)


@dataclass(frozen=True)
class Branches:
    """One training sequence: titles from ``start`` on, and the places of its targets."""

    start: int
    targets: tuple[int, ...]  # places in the item array; target t is predicted from start..t-1


def plan_branches(
    items: NDArray[np.int32],
    offsets: NDArray[np.int64],
    users: NDArray[np.int32],
    positions: NDArray[np.int64],
    tokens: TitleTokens,
    *,
    max_items: int,
    max_tokens: int,
    share: bool,
) -> list[Branches]:
    """Arrange (user, position) targets into sequences; share a prefix only where it is exact.

    A prefix is shared when the whole history of each target fits ``max_items`` and the tree fits
    ``max_tokens``; every other target becomes a sequence of its own.  Position 0 has no history
    and untitled items have nothing to predict: neither is a target.
    """
    usable = (positions > 0) & ~tokens.untitled[items[offsets[users] + positions]]
    users, positions = users[usable], positions[usable]
    order = np.lexsort((positions, users))
    users, places = users[order], offsets[users[order]] + positions[order]
    rows: list[Branches] = []
    for group in np.split(np.arange(len(users)), np.flatnonzero(np.diff(users)) + 1):
        if not len(group):
            continue
        begin, targets = int(offsets[users[group[0]]]), places[group].tolist()
        shared = [t for t in targets if share and t - begin <= max_items]
        if len(shared) > 1 and _tree_length(items, tokens, begin, shared) <= max_tokens:
            rows.append(Branches(begin, tuple(shared)))
        else:
            shared = []
        alone = targets[len(shared) :]
        rows.extend(Branches(max(begin, t - max_items), (t,)) for t in alone)
    return rows


def _tree_length(
    items: NDArray[np.int32], tokens: TitleTokens, start: int, targets: Sequence[int]
) -> int:
    stream = tokens.later.lengths[items[start : targets[-1]]].sum()
    return int(stream + tokens.ending.lengths[items[list(targets)]].sum())


class NextTitles:
    """Training sequences of next-title prediction: knows their lengths and builds batches."""

    def __init__(
        self,
        items: NDArray[np.int32],
        rows: Sequence[Branches],
        tokens: TitleTokens,
        *,
        max_tokens: int,
        pad_id: int,
    ) -> None:
        self.items, self.rows, self.tokens = items, rows, tokens
        self.max_tokens, self.pad_id = max_tokens, pad_id
        self.lengths = np.array(
            [min(max_tokens, _tree_length(items, tokens, r.start, r.targets)) for r in rows]
        )

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self, indices: NDArray[np.int64], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Ids, positions, branch numbers and which state predicts which token; nothing is drawn."""
        del generator
        trees = [self._tree(self.rows[index]) for index in indices]
        ids, mask = pad_rows([tree[0] for tree in trees], self.pad_id)
        places, _ = pad_rows([tree[1] for tree in trees], 0)
        branch, _ = pad_rows([tree[2] for tree in trees], 0)
        visible, _ = pad_rows([tree[3] for tree in trees], 0)
        row = np.repeat(np.arange(len(trees)), [len(tree[4]) for tree in trees])
        return {
            "ids": ids,
            "mask": mask,
            "places": places,
            "branch": branch,
            "visible": visible,
            "from_row": torch.from_numpy(row),
            "from_state": torch.from_numpy(np.concatenate([tree[4] for tree in trees])),
            "labels": torch.from_numpy(np.concatenate([tree[5] for tree in trees]).astype(int)),
        }

    def _tree(self, row: Branches) -> tuple[NDArray[np.int32], ...]:
        """ids, positions, branch, visible stream, and (state, label) pairs of one sequence."""
        parts = history_parts(self.items[row.start : row.targets[-1]], self.tokens)
        ends = np.cumsum([len(part) for part in parts])  # stream length after each title
        stream = np.concatenate(parts)
        if len(row.targets) == 1:  # an over-long history keeps its newest tokens
            room = self.max_tokens - len(self.tokens.ending[self.items[row.targets[0]]])
            stream = stream[-max(1, room) :]
            ends = np.array([len(stream)]).repeat(len(ends))
        ids, places = [stream], [np.arange(len(stream))]
        branch, visible = [np.zeros(len(stream))], [np.arange(1, len(stream) + 1)]
        states, labels = [], []
        total = len(stream)
        for number, target in enumerate(row.targets, start=1):
            ending = self.tokens.ending[self.items[target]]
            cut = int(ends[target - row.start - 1])
            ids.append(ending[:-1])  # the last token is only predicted, never read
            length = len(ending) - 1
            places.append(np.arange(cut, cut + length))
            branch.append(np.full(length, number))
            visible.append(np.full(length, cut))
            states.append(np.concatenate([[cut - 1], np.arange(total, total + length)]))
            labels.append(ending)
            total += length
        pieces = (ids, places, branch, visible, states, labels)
        return tuple(np.concatenate(piece).astype(np.int32) for piece in pieces)


def history_parts(history: NDArray[np.int32], tokens: TitleTokens) -> list[NDArray[np.int32]]:
    """The tokens of each title of a history, separators included."""
    return [tokens.first[history[0]], *(tokens.later[item] for item in history[1:])]


def join_history(history: NDArray[np.int32], tokens: TitleTokens) -> NDArray[np.int32]:
    """The prompt of one history, oldest first."""
    return np.concatenate(history_parts(history, tokens))


def tree_mask(batch: dict[str, Tensor]) -> Tensor:
    """Who sees whom: the stream up to one's cut, and earlier tokens of one's own branch.

    (B, L) -> (B, 1, L, L) bool
    """
    branch, visible, mask = batch["branch"], batch["visible"], batch["mask"].bool()
    index = torch.arange(branch.shape[1], device=branch.device)
    earlier = index[None, None, :] <= index[None, :, None]
    stream = (branch == 0)[:, None, :] & (index[None, None, :] < visible[:, :, None])
    own = branch[:, None, :] == branch[:, :, None]
    allowed = earlier & (stream | (own & (branch > 0)[:, :, None])) & mask[:, None, :]
    # A padded query must see something, or its softmax is NaN and the NaN spreads in backward.
    itself = index[None, None, :] == index[None, :, None]
    return (allowed | itself)[:, None]


def next_title_loss(model: nn.Module, batch: dict[str, Tensor], *, criterion: Criterion) -> Tensor:
    """Mean of -log p(target token | history titles, earlier target tokens).  -> ()

    The head is applied only to the states that predict a target token.
    """
    if int(batch["branch"].max()) > 1:
        states = trunk_of(model)(
            input_ids=batch["ids"],
            attention_mask=tree_mask(batch),
            position_ids=batch["places"],
            use_cache=False,
        ).last_hidden_state
    else:  # one branch each: the tree is an ordinary causal sequence
        states = hidden_states(model, batch["ids"], batch["mask"])
    predicting = states[batch["from_row"], batch["from_state"].long()]
    return criterion(predicting, model.get_output_embeddings().weight, batch["labels"])  # type: ignore[operator]
