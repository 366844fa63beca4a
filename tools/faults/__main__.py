"""Stage every fault on every notebook of the smoke profile, and keep what happened.

    python -m tools.faults                      all pairs that are not done yet
    python -m tools.faults --only "disk full"   one column; --node sasrec: one row
    python -m tools.faults --minutes 3          stop after three minutes, go on next time
    python -m tools.faults --publish            write docs/faults.md and docs/results/faults.json
    python -m tools.faults --work A --also B    with what another run of the same code found in B

It works in build/faults, a copy of the tree with a finished smoke store, inside a user namespace of
its own without a network, where it may mount small and read-only disks without any rights outside.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tools.faults import blows, hostile, models, stores, wishes
from tools.faults.table import Matrix
from tools.faults.trial import ATTEMPTS, Fault, Pauses, Verdict, try_pair
from tools.faults.workspace import ROOT, Case, Workspace

FAULTS: tuple[Fault, ...] = (
    wishes.PARAMETERS, stores.MISSING_INPUT, stores.DAMAGED_INPUT, wishes.NETWORK,
    stores.READ_ONLY, models.MODEL, stores.DAMAGED, blows.KILLS[0],
    hostile.HOSTILE, hostile.PAGES, blows.DISK, blows.MEMORY, *blows.KILLS[1:],
)  # fmt: skip
INSIDE = "LINGREC_FAULTS_INSIDE"


def step_inside() -> None:
    """Start again in a namespace of our own, if this machine lets us; it needs no rights."""
    prefix = ["unshare", "--map-root-user", "--mount", "--net"]
    if INSIDE in os.environ or shutil.which("unshare") is None:
        return
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0:
        command = [*prefix, sys.executable, "-m", "tools.faults", *sys.argv[1:]]
        os.execvpe(command[0], command, os.environ | {INSIDE: "1"})


def rows(space: Workspace, nodes: list[str], asked: list[str]) -> list[Case]:
    """The chosen nodes: first one for each notebook, then the others."""
    cases = [space.case(node) for node in nodes]
    firsts = {case.notebook: case.node for case in reversed(cases)}
    cases.sort(key=lambda case: firsts[case.notebook] != case.node)
    unknown = [x for x in asked if x not in {c.node for c in cases} | {c.notebook for c in cases}]
    if unknown:
        raise SystemExit(f"no node or notebook {unknown[0]!r} in the smoke profile")
    return [case for case in cases if not asked or {case.node, case.notebook} & set(asked)]


def columns(asked: list[str]) -> list[Fault]:
    unknown = [name for name in asked if name not in {fault.name for fault in FAULTS}]
    if unknown:
        names = ", ".join(fault.name for fault in FAULTS)
        raise SystemExit(f"no fault {unknown[0]!r}; known: {names}")
    return [fault for fault in FAULTS if not asked or fault.name in asked]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip  # noqa: E501
    parser.add_argument("--only", action="append", default=[], metavar="FAULT")
    parser.add_argument("--node", "--notebook", action="append", default=[], metavar="NAME")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--again", action="store_true", help="also pairs that are done")
    parser.add_argument("--first", action="store_true", help="only the first node of each notebook")
    parser.add_argument("--until", action="append", default=[], help="nodes of the smoke run")
    parser.add_argument("--publish", action="store_true", help="write the table into docs/")
    parser.add_argument("--busy", action="store_true", help="say that others used the machine")
    parser.add_argument("--earlier", action="store_true", help="keep published pairs not tried now")
    parser.add_argument("--also", type=Path, action="append", default=[], help="other work folders")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "faults")
    options = parser.parse_args()
    step_inside()
    options.work.mkdir(parents=True, exist_ok=True)
    space, matrix = Workspace(options.work), Matrix(options.work / "faults.json", FAULTS)
    if space.make(tuple(options.until)):
        matrix.forget()
    space.mend()
    for other in options.also:
        if (other / "copied").read_text("utf-8") != (options.work / "copied").read_text("utf-8"):
            raise SystemExit(f"{other.name} holds other code than {options.work.name}")
        matrix.take_over(other / "faults.json")
    space.rerun |= matrix.well(stores.DAMAGED.name)  # it was made again, and compared
    nodes = [node for node in space.profile().nodes if space.good.current(node)]
    cases = rows(space, nodes, options.node)
    if options.first:
        cases = list({case.notebook: case for case in reversed(cases)}.values())[::-1]
    try:
        run_matrix(space, matrix, cases, columns(options.only), options)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with the next pair", flush=True)
        return 128 + signal.SIGINT
    if options.earlier:
        matrix.keep_earlier(ROOT / "docs" / "results" / "faults.json")
    if options.publish:
        matrix.publish(ROOT, {node: space.case(node).notebook for node in nodes}, options.busy)
    print(matrix.summary(len(nodes)))
    return 1 if matrix.problems() else 0


def run_matrix(
    space: Workspace, matrix: Matrix, cases: list[Case], faults: list[Fault],
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """Pair by pair, kept after each, until all are done or the time is over."""
    began = time.monotonic()
    for fault in faults:
        for case in cases:
            if matrix.has(case.node, fault.name) and not options.again:
                continue
            if time.monotonic() - began > 60 * options.minutes:
                return
            verdict = judged(space, case, fault)
            matrix.add(case.node, fault.name, verdict)
            shown = "; ".join(verdict.problems) or ("" if verdict.state == "ok" else verdict.state)
            print(f"{fault.name:<17} {case.node:<22} {verdict.seconds:5.1f} s  {shown or 'ok'}",
                  flush=True)  # fmt: skip


def judged(space: Workspace, case: Case, fault: Fault) -> Verdict:
    """The verdict of a pair; once more if it found a problem while the machine stood still."""
    for _ in range(ATTEMPTS):
        with Pauses() as pauses:
            dice = random.Random(f"{fault.name} {case.node}")
            try:
                verdict = try_pair(space, case, fault, dice)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                verdict = Verdict("problem", [f"could not be staged: {error}"])
        space.restore(case.node)
        if not (verdict.problems and pauses.any):
            break
    return verdict


if __name__ == "__main__":
    sys.exit(main())
