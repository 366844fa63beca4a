"""What a tuned model writes as the next title: freely, or held to the catalogue by a trie."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.language.backbone import Backbone
from lib.language.tokens import TokenTable

__all__ = ["Trie", "write_titles", "write_titles_from_catalogue"]


class Trie:
    """Which tokens may follow, given the tokens of a title so far.

    >>> trie = Trie(TokenTable.from_rows([[1, 2, 9], [1, 3, 9]]))
    >>> trie.following([1])
    [2, 3]
    """

    def __init__(self, endings: TokenTable) -> None:
        self.root: dict[int, dict] = {}  # type: ignore[type-arg]
        self.rows: dict[tuple[int, ...], int] = {}
        for row in range(len(endings)):
            node = self.root
            title = endings[row].tolist()
            self.rows.setdefault(tuple(title), row)
            for token in title:
                node = node.setdefault(token, {})

    def following(self, tokens: Sequence[int]) -> list[int]:
        node = self.root
        for token in tokens:
            node = node.get(token, {})
        return list(node)


@torch.no_grad()
def write_titles(backbone: Backbone, prompts: Sequence[Tensor], *, max_tokens: int) -> list[str]:
    """Greedy continuations of token prompts, one at a time."""
    texts = []
    for prompt in prompts:
        written = backbone.model.generate(
            prompt[None], attention_mask=torch.ones_like(prompt)[None], do_sample=False,
            max_new_tokens=max_tokens, pad_token_id=backbone.pad_id,
        )[0, len(prompt) :]  # fmt: skip
        texts.append(backbone.tokenizer.decode(written, skip_special_tokens=True).strip())
    return texts


@torch.no_grad()
def write_titles_from_catalogue(
    backbone: Backbone, prompts: Sequence[Tensor], trie: Trie, *, n_beams: int, max_tokens: int
) -> list[list[int]]:
    """For each prompt the ``n_beams`` most probable catalogue titles (rows of the trie's table)."""
    answers = []
    for prompt in prompts:
        start = len(prompt)

        def allowed(_: int, ids: Tensor, start: int = start) -> list[int]:
            return trie.following(ids[start:].tolist()) or [backbone.eos_id]

        beams = backbone.model.generate(
            prompt[None], attention_mask=torch.ones_like(prompt)[None], do_sample=False,
            num_beams=n_beams, num_return_sequences=n_beams, max_new_tokens=max_tokens,
            prefix_allowed_tokens_fn=allowed, pad_token_id=backbone.pad_id, length_penalty=0.0,
        )[:, start:]  # fmt: skip
        rows = []
        for beam in beams.tolist():
            end = beam.index(backbone.eos_id) + 1 if backbone.eos_id in beam else len(beam)
            row = trie.rows.get(tuple(beam[:end]))
            if row is not None and row not in rows:
                rows.append(row)
        answers.append(rows)
    return answers
