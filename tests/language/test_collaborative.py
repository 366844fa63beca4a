"""Next-title tuning: the tree of branches must equal one plain sequence per target."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.language.collaborative import NextTitles, next_title_loss, plan_branches, tokenise_titles
from tests.language.conftest import TEXTS, make_model

TITLES = ["", *TEXTS]
ITEMS = np.array([1, 2, 3, 4, 5, 2, 6, 1], dtype=np.int32)
OFFSETS = np.array([0, 5, 8], dtype=np.int64)
USERS = np.array([0, 0, 0, 0, 1, 1], dtype=np.int32)
POSITIONS = np.array([1, 2, 3, 4, 1, 2], dtype=np.int64)


def cross_entropy(hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(hidden @ table.T, targets)


def build(tokenizer, *, share: bool, max_items: int = 10, max_tokens: int = 512, titles=TITLES):
    tokens = tokenise_titles(tokenizer, titles, max_tokens=32)
    rows = plan_branches(ITEMS, OFFSETS, USERS, POSITIONS, tokens, max_items=max_items,
                         max_tokens=max_tokens, share=share)  # fmt: skip
    return NextTitles(ITEMS, rows, tokens, max_tokens=max_tokens, pad_id=0)


def everything(titles: NextTitles) -> dict[str, Tensor]:
    return titles.batch(np.arange(len(titles)))


def test_shared_prefixes_give_the_loss_and_gradient_of_separate_sequences(tokenizer, family):
    shared, separate = (everything(build(tokenizer, share=share)) for share in (True, False))
    assert len(shared["ids"]) == 2
    assert len(separate["ids"]) == 6
    assert shared["mask"].sum() < separate["mask"].sum()
    model = make_model(family).double()
    results = []
    for batch in (shared, separate):
        loss = next_title_loss(model, batch, criterion=cross_entropy)
        model.zero_grad()
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        results.append((loss.detach(), gradient))
    torch.testing.assert_close(
        results[0], results[1], rtol=0, atol=1e-7
    )  # rotary angles are float32


def test_loss_is_that_of_the_plain_model_with_labels_on_the_target_only(tokenizer, family):
    titles = build(tokenizer, share=False)
    model = make_model(family).double()
    total, count = 0.0, 0
    for row in titles.rows:
        history = ", ".join(TITLES[i] for i in ITEMS[row.start : row.targets[0]])
        target = titles.tokens.ending[ITEMS[row.targets[0]]].tolist()
        prompt = np.concatenate([titles.tokens.first[ITEMS[row.start]]]
                                + [titles.tokens.later[i] for i in ITEMS[row.start + 1 : row.targets[0]]])  # fmt: skip
        assert tokenizer.decode(prompt) == history
        ids = torch.tensor([[*prompt.tolist(), *target]])
        labels = torch.tensor([[-100] * len(prompt) + target])
        total += model(input_ids=ids, labels=labels).loss.item() * len(target)
        count += len(target)
    loss = next_title_loss(model, everything(titles), criterion=cross_entropy)
    assert loss.item() == pytest.approx(total / count, abs=1e-6)


def test_padding_and_batch_mates_do_not_change_a_loss(tokenizer):
    titles = build(tokenizer, share=True)
    model = make_model("qwen3").double()
    both = next_title_loss(model, everything(titles), criterion=cross_entropy)
    alone = [titles.batch(np.array([i])) for i in (0, 1)]
    losses = [next_title_loss(model, batch, criterion=cross_entropy) for batch in alone]
    counts = [len(batch["labels"]) for batch in alone]
    assert both.item() == pytest.approx(float(np.average([x.item() for x in losses], weights=counts)), abs=1e-6)  # fmt: skip


def test_history_longer_than_allowed_is_not_shared_and_keeps_its_newest_items(tokenizer):
    titles = build(tokenizer, share=True, max_items=2)
    spans = sorted(row.targets[-1] - row.start for row in titles.rows)
    assert max(spans) == 2
    assert sum(len(row.targets) for row in titles.rows) == 6


def test_over_long_prompt_keeps_its_tail(tokenizer):
    titles = build(tokenizer, share=False, max_tokens=12)
    batch = everything(titles)
    assert batch["ids"].shape[1] <= 12
    longest = titles.batch(np.array([3]))
    full = build(tokenizer, share=False).batch(np.array([3]))
    kept = longest["mask"].sum()
    assert longest["ids"][0, :kept].tolist() == full["ids"][0, full["mask"].sum() - kept : full["mask"].sum()].tolist()  # fmt: skip


def test_untitled_items_stand_in_prompts_but_are_never_targets(tokenizer):
    titles = build(tokenizer, share=True, titles=["", "red kettle", " ", *TEXTS[2:]])
    targets = [ITEMS[t] for row in titles.rows for t in row.targets]
    assert 2 not in targets
    assert len(targets) == 5
    assert len(titles.tokens.first[2]) > 0
