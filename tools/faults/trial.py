"""One fault as data: how it is staged, what must be said, and how a pair is judged."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib.pipeline.store import Result
from tools.faults.forks import SPENT
from tools.faults.same import differences
from tools.faults.workspace import Answer, Case, Process, Workspace

__all__ = [
    "ATTEMPTS", "Expect", "Fault", "Pair", "Pauses", "Stage", "Trial", "Verdict", "judge",
    "told", "try_pair",
]  # fmt: skip

LONG = 400  # letters of a message that are kept
ATTEMPTS = 3  # a kill may come too late, a limit may not be felt: again, at an earlier cell


@dataclass(frozen=True, slots=True)
class Expect:
    """Exit code, and what the message must contain, each part under a name of its own."""

    code: int
    says: dict[str, str]


@dataclass(frozen=True, slots=True)
class Trial:
    """A staged fault: the command to run, what happens meanwhile, and what is expected.

    No words: there is nothing to run; the stage has an answer of its own, or does not apply.
    """

    words: tuple[str, ...]
    expect: Expect
    during: Callable[[Process], None] | None = None
    intact: bool = True  # whether the last good result is to be looked at while the fault lasts
    quiet: bool = False  # nobody is left who could say anything
    answer: Answer | None = None
    problems: tuple[str, ...] = ()  # what the stage itself found
    after: Callable[[], list[str]] = list  # what it finds once the command has ended


@dataclass(frozen=True, slots=True)
class Pair:
    """What a stage works on: the workspace, the node, chance, and which attempt this is."""

    space: Workspace
    case: Case
    dice: random.Random
    attempt: int = 0

    @property
    def node(self) -> str:
        return self.case.node

    @property
    def folder(self) -> Path:
        """The node's folder in the live store."""
        return self.space.store.folder(self.node)

    @property
    def good(self) -> Result:
        """Its undisturbed result."""
        return self.space.result(self.node)

    def only(self, *words: str) -> tuple[str, ...]:
        """The command that runs this node and nothing else."""
        return ("smoke", "--only", self.node, *words)


Stage = Callable[[Pair], AbstractContextManager[Trial]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A column of the matrix; ``stages`` are staged one after another, then all is undone."""

    name: str
    about: str
    expected: str
    stages: tuple[Stage, ...]
    spared: Callable[[Pair], str] = lambda _: ""  # why it cannot happen to a node
    rerun: bool = False  # whether the run after the fault must do the work again
    retries: bool = False  # whether a stage that ends in success was too late


@dataclass(slots=True)
class Verdict:
    """A cell of the matrix."""

    state: str  # "ok", "problem", or why the fault cannot happen here
    problems: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all processes that were waited for: tells the same when busy


def judge(expect: Expect, answer: Answer, quiet: bool = False) -> list[str]:
    """What is wrong with an answer.

    >>> judge(Expect(3, {"remedy": "run `"}), Answer(3, "blocked: no input; run `x`"))
    []
    """
    problems = []
    if answer.code != expect.code:
        problems.append(f"exit code {answer.code}, expected {expect.code}")
    if quiet:
        return problems
    text = "\n".join(line for line in answer.said.splitlines() if "  | " not in line)
    problems += [f"the message lacks {part}" for part, pattern in expect.says.items()
                 if not re.search(pattern, text)]  # fmt: skip
    if re.search(r"^Traceback", answer.said, re.MULTILINE):
        problems.append("a traceback of the runner")
    return problems


def told(answer: Answer, expect: Expect | None = None) -> str:
    """The message without traceback and course of the run, but for what was expected of it.

    >>> told(Answer(0, "▸ gbdt: 50_train_gbdt (forced)\\n✓ gbdt: ran 2.1 s\\n1 ran in 2.2 s"))
    '✓ gbdt: ran 2.1 s'
    """
    noise = ("▸", "…", "·", "log:", "again:")
    lines = [line.strip() for line in answer.said.splitlines()]
    lines = [line for line in lines if line and not line.startswith("|")]
    wanted = "|".join(expect.says.values()) if expect and expect.code == 0 else ""
    kept = [x for x in lines if (not x.startswith(noise) and not COUNT.match(x))
            or (wanted and re.search(wanted, x))]  # fmt: skip
    text = " / ".join(kept or lines[-1:]) or f"exit code {answer.code}"
    return text if len(text) <= LONG else f"{text[:LONG]}…"


COUNT = re.compile(r"\d+ (done|ran|failed|blocked|restored).* s$")


def stages_of(fault: Fault, pair: Pair) -> Iterator[tuple[Trial, Answer, list[str]]]:
    """Stage by stage the trial, its answer, and what else was found, as in the last good result."""
    for stage in fault.stages:
        for attempt in range(ATTEMPTS):
            with stage(replace(pair, attempt=attempt)) as trial:
                if not trial.words and trial.answer is None:
                    break
                answer = trial.answer or pair.space.run(*trial.words, during=trial.during)
                lost = [*trial.problems[:3], *trial.after()]
                if trial.intact:
                    lost += [f"while it lasted: {x}" for x in pair.space.loss(pair.node)[:2]]
            late = fault.retries and answer.code == 0 and attempt < ATTEMPTS - 1
            if not late:
                yield trial, answer, lost
                break


def try_pair(space: Workspace, case: Case, fault: Fault, dice: random.Random) -> Verdict:
    """Stage one fault on one node, undo it, run again, and compare with the undisturbed run."""
    began, cpu, pair = time.monotonic(), SPENT[0], Pair(space, case, dice)
    reason = fault.spared(pair)
    if reason:
        return Verdict(reason)
    problems: list[str] = []
    said: list[str] = []
    for trial, answer, lost in stages_of(fault, pair):
        problems += judge(trial.expect, answer, trial.quiet)
        problems += lost
        said.append("" if trial.quiet else told(answer, trial.expect))
    found, again = afterwards(pair, fault.rerun)
    problems += found
    said = [text or f"nothing; the next run: {again}" for text in said]
    spent = round(time.monotonic() - began, 1), round(SPENT[0] - cpu, 1)
    return Verdict("problem" if problems else "ok", problems, said, *spent)


class Pauses:
    """Whether everything stood still for a while, as on a machine that was put to sleep.

    Limits of time pass meanwhile, so that a problem then says nothing: the pair is tried again.
    """

    def __init__(self, patience: float = 10.0) -> None:
        self.patience, self.longest, self.over = patience, 0.0, threading.Event()

    def __enter__(self) -> "Pauses":
        threading.Thread(target=self.keep, daemon=True).start()
        return self

    def keep(self) -> None:
        while True:
            began = time.monotonic()
            if self.over.wait(1.0):
                return
            self.longest = max(self.longest, time.monotonic() - began - 1.0)

    def __exit__(self, *_: object) -> None:
        self.over.set()

    @property
    def any(self) -> bool:
        return self.longest > self.patience


def afterwards(pair: Pair, rerun: bool) -> tuple[list[str], str]:
    """What is not as it was before, once the fault is gone and the node has run again; its words.

    Where a fault left the folder as if nothing had happened, another run again stands for it.
    """
    space, untouched = pair.space, pair.space.untouched(pair.node)
    force = rerun and not (untouched and pair.node in space.rerun)
    answer = space.run(*pair.only(*["--force"] * force))
    found = changes(pair, answer)
    if force and not found:
        space.rerun.add(pair.node)
    return found, told(answer)


def changes(pair: Pair, answer: Answer) -> list[str]:
    """How the node differs from its undisturbed run."""
    if answer.code:
        return [f"afterwards exit code {answer.code}: {told(answer)}"]
    space = pair.space
    return [
        *(f"afterwards: {loss}" for loss in space.loss(pair.node)[:2]),
        *differences(pair.good, space.store.current(pair.node))[:3],
        *(f"left behind: {name}" for name in space.leftovers(pair.node)[:3]),
    ]
