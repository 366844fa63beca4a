"""What people see: lines in a pipe, a live table on a terminal, tokens at work."""

import io
import json
import os
import pty
import re
import subprocess
import time
from concurrent.futures import Future

import pytest
from rich.console import Console

from lib.pipeline import executors
from lib.pipeline.executors import LocalPool
from lib.pipeline.pages import render_pages
from lib.pipeline.profile import load_profile
from lib.pipeline.show import HEARTBEAT_SECONDS, Reporter


@pytest.fixture
def reporter(pair, monkeypatch):
    profile = load_profile(pair.home, "demo")
    return Reporter(pair.store, profile, profile.order(), live=False)


def test_the_heartbeat_names_notebook_cell_and_progress(reporter, pair, capsys):
    folder = pair.store.folder("numbers")
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(
        json.dumps({"cell": 3, "cells": 9, "title": "Train \x1b[31m"})
    )
    progress = {"done": 2, "total": 5, "numbers": {"loss": 0.123456}}
    (folder / "progress.json").write_text(json.dumps(progress))
    reporter.started("numbers", ["never finished"])
    reporter.tick()
    reporter.beat -= HEARTBEAT_SECONDS + 1
    reporter.tick()
    said = capsys.readouterr().out.splitlines()
    assert said == ["▸ numbers: 00_make_numbers (never finished)",
                    "… numbers: 00_make_numbers.ipynb, 0 s, cell 4/9 'Train \\x1b[31m', 2/5 loss 0.1235"]  # fmt: skip


def test_a_torn_status_is_no_reason_to_stop(reporter, pair, capsys):
    folder = pair.store.folder("numbers")
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"cell": 3, "ce')
    reporter.started("numbers", [])
    assert reporter.activity("numbers") == "00_make_numbers.ipynb, 0 s"


def test_many_reasons_are_shortened(reporter, capsys):
    reporter.started("numbers", [f"reason {n}" for n in range(9)])
    assert "reason 2 and 6 more" in capsys.readouterr().out


@pytest.mark.parametrize(("device", "lines"), [("cpu", 2), ("cuda", 1)])
def test_a_node_that_wants_a_gpu_falls_back_to_the_cpu_and_says_so(
    reporter, monkeypatch, capsys, device, lines
):
    monkeypatch.setenv("LINGREC_DEVICE", device)
    reporter.profile.nodes["numbers"].resources["gpu"] = 1.0
    reporter.started("numbers", [])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == lines
    assert said[1:] == ["  numbers asks for a GPU and there is none: it runs on the CPU, far longer"][: lines - 1]  # fmt: skip


def test_the_live_table_tells_until_when_a_node_runs_and_what_waits(reporter, pair):
    pair.complete("numbers", "[3]")
    reporter.store.current("numbers").folder.joinpath("record.json").write_text('{"seconds": 90.0}')
    reporter.started("numbers", ["forced"])
    said = io.StringIO()
    Console(file=said, width=200).print(reporter.table())
    head, running, waiting, count = said.getvalue().splitlines()
    assert head.split()[-2:] == ["expected", "end"]
    assert re.search(
        r"numbers +running +00_make_numbers\.ipynb, 0 s +\d\d:\d\d:\d\d, in 90 s", running
    )
    assert waiting.split() == ["waiting", "product"]
    assert count.split()[0] == "0/2"


def node(name, pair, **resources):
    words = ", ".join(f"{key}: {value}" for key, value in resources.items())
    pair.profile(f"  {name}: {{notebook: 00_make_numbers, resources: {{{words}}}}}\n")
    return load_profile(pair.home, "demo").nodes[name]


def test_tokens_are_taken_and_given_back(pair, monkeypatch):
    ends: list[Future] = []
    monkeypatch.setattr(executors, "launch", None)
    pool = LocalPool(pair.home, 3, follow=False)
    pool.executor = type(
        "Slow", (), {"submit": lambda self, *a: ends.append(Future()) or ends[-1]}
    )()
    two, one = node("a", pair, cpu=2), node("b", pair, cpu=1)
    huge = node("c", pair, cpu=64, memory_gb=100_000)
    assert pool.fits(huge)  # alone
    pool.submit(two, [])
    assert not pool.fits(two)
    assert not pool.fits(huge)
    assert pool.fits(one)
    pool.submit(one, [])
    assert not pool.fits(one)
    ends[0].set_result((0, ""))
    assert pool.fits(two)


def test_each_gpu_goes_to_one_node_at_a_time(pair, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    given, ends = [], []
    pool = LocalPool(pair.home, 8, follow=False)

    def submit(_, act, command, variables, follow):
        given.append(variables["CUDA_VISIBLE_DEVICES"])
        ends.append(Future())
        return ends[-1]

    pool.executor = type("Slow", (), {"submit": submit})()
    one = node("a", pair, gpu=1)
    pool.submit(one, [])
    pool.submit(one, [])
    assert sorted(given) == ["3", "5"]
    assert not pool.fits(one)
    ends[0].set_result((0, ""))
    assert pool.fits(one)


@pytest.mark.slow
def test_on_a_terminal_a_live_table_shows_cell_and_progress(world):
    world.notebook("00_train_slowly",
                   "for epoch in range(4):\n    run.progress(epoch, 4, loss=0.5)\n    time.sleep(0.6)",
                   "run.finish()")  # fmt: skip
    world.profile("  trains: {notebook: 00_train_slowly}\n")
    master, slave = pty.openpty()
    runner = subprocess.Popen(world.command("demo"), env=world.environment(TERM="xterm"),
                              stdin=slave, stdout=slave, stderr=slave, start_new_session=True)  # fmt: skip
    os.close(slave)
    said, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            said += os.read(master, 65536)
        except OSError:  # the other end is closed
            break
    assert runner.wait() == 0
    text = said.decode()
    assert "\x1b[" in text
    assert "running" in text
    assert "loss 0.5" in text
    assert "0/1" in text
    assert "✓ trains: ran" in text


def test_pages_are_made_once_and_again_when_what_they_show_changes(pair, capsys):
    profile = load_profile(pair.home, "demo")
    pair.complete("numbers", "[3]")
    assert render_pages(pair.home, profile)
    assert "pages: reports/index.html" in capsys.readouterr().out
    assert (pair.root / "reports/demo/product.html").exists()
    before = pair.files()
    assert render_pages(pair.home, profile)
    assert pair.files() == before
    pair.complete("product", "6")
    assert render_pages(pair.home, profile)
    assert "2 done" in (pair.root / "reports/index.html").read_text("utf-8")


def test_pages_that_cannot_be_made_are_told_and_undo_nothing(pair, capsys):
    pair.complete("numbers", "[3]")
    (pair.root / "reports").write_text("a file where a folder belongs")
    assert not render_pages(pair.home, load_profile(pair.home, "demo"))
    assert "the pages could not be made: " in capsys.readouterr().err
    assert pair.value("numbers") == [3]
