"""The nodes of a report on sequences, sized to the data; language models only where titles are."""

from dataclasses import dataclass

from lib.studies.proposal_sequences import SequenceLook
from lib.studies.proposal_text import PlannedNode

__all__ = ["Titles", "plan_sequences"]

TITLED = 0.5  # share of items with a title from which a language model has something to read
LARGEST = 50_000  # items up to which soft tokens use the full softmax
LEAST_ITEMS = 50  # below, maps and neighbours say nothing
ROWS_SEEN = 1_500_000  # training positions that a row sees in all
LOSS = {
    "softmax": "auto", "full_up_to": LARGEST, "n_sampled": 8192, "collaborative": 1.0, "bpr": 0.1,
    "regularisation": 0.0, "lambda_c": 0.001, "n_negatives": 30, "pool": "shared",
}  # fmt: skip
SETTINGS = {
    "soft": {"learning_rate": 2.0e-3, "dropout": 0.2, "user_dropout": 0.5, "token_gain": 1.0},
    "sasrec": {"learning_rate": 3.0e-3, "dropout": 0.3},
    "bpr-mf": {"learning_rate": 3.0e-3, "table_decay": 0.1},
    "fpmc": {"learning_rate": 3.0e-3, "table_decay": 0.1},
}


@dataclass(frozen=True, slots=True)
class Titles:
    """Whether items have titles, or their ids stand in for them."""

    real: bool
    n_items: int  # that are left


@dataclass(frozen=True, slots=True)
class Size:
    rows: int
    users: int
    items: int
    max_len: int
    targets: int  # of the test

    @property
    def epochs(self) -> int:
        return max(3, min(30, round(ROWS_SEEN / self.rows)))

    @property
    def width(self) -> int:
        return 32 if self.rows < 50_000 else 64

    @property
    def points(self) -> int:
        return min(800, self.items)

    @property
    def perplexities(self) -> list[float]:
        return [15.0, 40.0] if self.items >= 200 else [5.0, 12.0]


def plan_sequences(look: SequenceLook, raw: str, source: dict[str, object]) -> list[PlannedNode]:
    """Histories and counted rows; with titles LLM2Rec; for a catalogue that fits, soft tokens."""
    titles = judge_titles(look)
    rows, users, _ = look.kept
    size = Size(
        rows=rows, users=users, items=titles.n_items,
        max_len=50 if look.length <= 50 else 100,
        targets=users if look.split == "last" else rows // 10,
    )  # fmt: skip
    nodes = [histories(look, raw, source, titles), baselines(size)]
    if size.items < LEAST_ITEMS:
        return nodes
    nodes.append(backbone(size, titles))
    if titles.real:
        nodes += [csft(size), mntp(size), llm2rec(size), embeddings(size), sasrec(size)]
    if size.items <= LARGEST:
        nodes += [soft_tokens(size, titles), soft_tokens_study(size)]
    if titles.real:
        nodes.append(comparison(size, {node.name for node in nodes}))
    return nodes


def judge_titles(look: SequenceLook) -> Titles:
    """Language models where half of the items have titles; then items without one leave."""
    real = look.titled >= TITLED
    kept = look.kept[2]
    return Titles(real, round(kept * look.titled) if real else kept)


def histories(
    look: SequenceLook, raw: str, source: dict[str, object], titles: Titles
) -> PlannedNode:
    long = look.words > 20
    params: dict[str, object] = {
        **source, "require_title": titles.real, "max_title_words": 0 if long else 20,
        "user_core": look.core[0], "item_core": look.core[1], "split": look.split,
    }  # fmt: skip
    rows, users, items = look.kept
    repeats = f"{look.repeats:.1%} of the rows repeat one that was there"
    reasons = {
        "require_title": f"{look.titled:.1%} of the kept items have a title"
        if titles.real else "no titles: an item's id stands in for its title",
        "max_title_words": "long titles are cut" if long else "longer ones are refused",
        "item_core": f"leaves {rows:,} rows, {users:,} users, {items:,} items",
        "split": look.why_split,
    }  # fmt: skip
    return PlannedNode(
        name="histories", notebook="10_prepare_histories", inputs={"raw": f"raw:{raw}"},
        why=f"Who met what, in order; {repeats}, and they stay.", params=params, reasons=reasons,
        work=len(look.rows), memory_gb=1 + len(look.rows) * 2e-7,
    )  # fmt: skip


def baselines(size: Size) -> PlannedNode:
    return PlannedNode(
        name="baselines", notebook="13_measure_baselines",
        inputs={"histories": "histories/histories"},
        why="How far counting gets: popularity, Markov chain, item neighbours.",
        params={"max_valid": 5000, "max_len": size.max_len},
        reasons={"max_valid": "validation targets that tune item neighbours"},
        work=(min(size.targets, 5000) * 4 + size.targets * 5) * size.items,
        memory_gb=1 + size.items**2 * 4e-9,
    )  # fmt: skip


def backbone(size: Size, titles: Titles) -> PlannedNode:
    epochs = max(3, min(20, 40_000 // size.items)) if titles.real else 1
    words = {"n_tokens": 512 if size.items < 1000 else 2048}
    if not titles.real:
        words["n_tokens"] = 300
    return PlannedNode(
        name="backbone", notebook="20_pretrain_small_backbone",
        inputs={"histories": "histories/histories"},
        why="A small language model of these titles, so that nothing is downloaded; your own takes "
        'its place with backbone: "raw:FOLDER" among the inputs below.'
        if titles.real else "A transformer for the soft tokens; its words do not matter.",
        params={**words, "epochs": epochs}, reasons={"epochs": "few texts, so many passes"},
        work=size.items * epochs,
    )  # fmt: skip


def csft(size: Size) -> PlannedNode:
    steps = max(50, min(400, size.rows // 200))
    return PlannedNode(
        name="csft", notebook="21_tune_on_histories",
        inputs={"histories": "histories/histories", "backbone": "backbone/backbone"},
        why="LLM2Rec, first stage: the title of the next item, after the titles of a history.",
        params={"epochs": None, "steps": steps, "n_constrained": min(60, size.users)},
        reasons={"steps": f"of 4,096 tokens; {size.rows:,} interactions"}, work=steps,
    )  # fmt: skip


def mntp(size: Size) -> PlannedNode:
    return PlannedNode(
        name="mntp", notebook="22_predict_masked_titles",
        inputs={"histories": "histories/histories", "backbone": "csft/backbone"},
        why="Second stage: masked titles, read in both directions.",
        params={"epochs": passes(size)}, work=size.items * passes(size),
    )  # fmt: skip


def passes(size: Size) -> int:
    """Over the titles."""
    return 4 if size.items < 5000 else 2 if size.items < 50_000 else 1


def llm2rec(size: Size) -> PlannedNode:
    batch = 128 if size.items >= 512 else 32
    return PlannedNode(
        name="llm2rec", notebook="23_contrast_titles",
        inputs={"histories": "histories/histories", "backbone": "mntp/backbone"},
        why="Third stage: each title close to itself, apart from others.",
        params={"epochs": passes(size), "titles_per_batch": batch}, work=size.items * passes(size),
    )  # fmt: skip


def embeddings(size: Size) -> PlannedNode:
    stages = {"raw": "backbone", "csft": "csft", "mntp": "mntp", "llm2rec": "llm2rec"}
    inputs = {stage: f"{node}/backbone" for stage, node in stages.items()}
    return PlannedNode(
        name="embeddings", notebook="24_extract_item_embeddings",
        inputs={"histories": "histories/histories", **inputs},
        why="A vector of each title after each stage, as a map and as numbers.",
        params={"n_points": size.points, "perplexities": size.perplexities, "iterations": 300},
        reasons={"n_points": "items on the maps"},
        work=size.items + 20 * size.points, memory_gb=2,
    )  # fmt: skip


def sasrec(size: Size) -> PlannedNode:
    rows = ["id", "tfidf", "llm2rec", "tfidf+id", "llm2rec+id", "shuffled+id"]
    seeds = [1, 2] if size.rows < 200_000 else [1]
    return PlannedNode(
        name="sasrec", notebook="25_evaluate_sasrec",
        inputs={"histories": "histories/histories", "embeddings": "embeddings",
                "baselines": "baselines"},
        why="What titles add to a sequence model: ids alone, text alone, both, and a control.",
        params={
            "rows": rows, "seeds": seeds, "n_dims": size.width, "max_len": size.max_len,
            "epochs": size.epochs, "patience": 3, "n_validation": 2000, "batch": batch_of(size),
        },
        reasons={"rows": "shuffled+id: texts given to other items; should not help",
                 "seeds": "one training run each",
                 "epochs": "at most; three without gain end it"},
        work=len(rows) * len(seeds) * training_work(size), memory_gb=2 + size.items * 2e-6 * 64,
    )  # fmt: skip


def training_work(size: Size) -> float:
    """Multiplications of one row: every position against every item, and two layers."""
    return size.epochs * size.rows * (size.items * size.width + 24 * size.width**2)


def batch_of(size: Size) -> int:
    """Users per step: fifty steps a pass or more."""
    return 32 if size.users < 3000 else 64 if size.users < 10_000 else 256


def soft_tokens(size: Size, titles: Titles) -> PlannedNode:
    own = ["pretrained", "pretrained+titles"] if titles.real else ["random"]
    rows = [*own, "sasrec", "bpr-mf", "fpmc"]
    return PlannedNode(
        name="soft_tokens", notebook="30_train_soft_tokens",
        inputs={"histories": "histories/histories", "backbone": "backbone/backbone"},
        why="Users and items as tokens inside a language model, beside SASRec, BPR-MF and FPMC."
        if titles.real else "Users and items as tokens of a transformer, beside SASRec.",
        params={
            "rows": rows, "epochs": size.epochs, "patience": 3, "batch": batch_of(size),
            "max_len": size.max_len, "temperature": 0.07, "d_rec": size.width, "n_validation": 2000,
            "titles_from": "tfidf" if titles.real else "none",
            "settings": SETTINGS, "loss": LOSS,
        },
        reasons={"epochs": "at most; three without gain end it",
                 "temperature": "a cosine score learns in fewer passes than a dot product",
                 "loss": f"full softmax: {size.items:,} items"},
        work=len(rows) * training_work(size) + len(own) * size.epochs * size.rows * 3e5,
        memory_gb=2 + (size.users + size.items) * size.width * 16e-9,
    )  # fmt: skip


def soft_tokens_study(size: Size) -> PlannedNode:
    return PlannedNode(
        name="soft_tokens_study", notebook="31_evaluate_soft_tokens",
        inputs={"histories": "histories/histories", "baselines": "baselines",
                "training": "soft_tokens"},
        why="All of them beside the counted rows, segment by segment, full and sampled ranking.",
        params={
            "n_candidates": min(100, size.items // 2), "max_len": size.max_len,
            "n_points": min(600, size.items, size.users), "perplexities": size.perplexities,
            "iterations": 300,
        },
        reasons={"n_candidates": "of the sampled column, which other papers report"},
        work=size.targets * size.items * 8, memory_gb=2,
    )  # fmt: skip


def comparison(size: Size, there: set[str]) -> PlannedNode:
    """Each row with a language model beside the row that knows the same without one."""
    rankings = {"baselines": "", "sasrec": "SASRec"}
    inputs = {"histories": "histories/histories", "baselines": "baselines", "sasrec": "sasrec"}
    stages = {"csft": "csft/backbone", "mntp": "mntp/backbone", "llm2rec": "llm2rec/backbone",
              "embeddings": "embeddings"}  # fmt: skip
    questions = {"SASRec: llm2rec+id": ["SASRec: tfidf+id", "SASRec: id", "SASRec: shuffled+id"],
                 "SASRec: llm2rec": ["SASRec: tfidf"]}  # fmt: skip
    if "soft_tokens_study" in there:
        inputs["soft_tokens"], rankings["soft_tokens"] = "soft_tokens_study", "soft tokens"
        questions["soft tokens: pretrained"] = ["SASRec (31)"]
        questions["soft tokens: pretrained+titles"] = ["SASRec: tfidf+id"]
    return PlannedNode(
        name="everything", notebook="90_compare_everything", inputs={**inputs, **stages},
        why="What language models add here, and what to use: all rows, with their cost.",
        params={"rankings": rankings, "rungs": [], "logs": {}, "prepared_by": {},
                "questions": questions},
        reasons={"questions": "a row with a language model, and its honest counterparts"},
        work=size.targets * 20, memory_gb=2,
    )  # fmt: skip
