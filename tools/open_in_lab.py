"""Open notebooks in a real JupyterLab and run them as a person would.

    python tools/open_in_lab.py 00 59 --pictures build/lab     in headless Chromium, with pictures
    python tools/open_in_lab.py all --api                      without a browser: the same requests

A server is started for the project in this folder, as ``make lab`` does. Each notebook runs from
top to bottom with its own parameters against the newest finished inputs of the demo (make them
first: ``make reports``) and is pictured in the light and in the dark theme. With ``--change
59:draws=100`` a parameter is changed in between and the notebook runs again. Notebooks on disk
stay as they are.
Prints one JSON line per run; ends with 1 if a cell failed.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import websocket

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.lab_server import Server, change_source, lab, run_by_requests, wait  # noqa: E402

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update",
         "--remote-debugging-port=0", "--remote-allow-origins=*")  # fmt: skip
PANEL = "[...jupyterapp.shell.widgets('main')].find((w) => w.content && w.content.widgets)"


class Tab:
    """A tab of headless Chromium, driven through its DevTools socket."""

    def __init__(self, place: str) -> None:
        self.socket, self.count = websocket.create_connection(place, timeout=3600), 0
        self.call("Page.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a tab that is looked at
        self.call("Emulation.setDeviceMetricsOverride", width=1280, height=1000,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip

    def call(self, method: str, **arguments: object) -> Any:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": arguments}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def ask(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)  # fmt: skip
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:800])
        return answer["result"].get("value")

    def picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def chromium() -> Iterator[Tab]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        sys.exit("Chromium is not installed (Debian: apt-get install chromium); --api needs none")
    folder = tempfile.mkdtemp(prefix="lab-")
    command = [found, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        try:
            note = Path(folder) / "DevToolsActivePort"
            port = wait(
                lambda: note.is_file() and note.read_text().split(),
                120,
                "Chromium did not open its port",
            )[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            yield Tab(tabs[0]["webSocketDebuggerUrl"])
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(folder, ignore_errors=True)


def run_in_browser(server: Server, tab: Tab, path: str, change: dict[str, str],
                   pictures: Path, minutes: float) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Open, run all cells, look; change parameters and run again, if asked; look in the dark."""
    address = f"http://{server.address}/lab/tree/{path}?reset&token={server.token}"
    tab.call("Page.navigate", url=address)  # reset: the notebook before this one does not return
    there = (
        f"!!(window.jupyterapp && {PANEL} && {PANEL}.context.path === '{path}' "
        f"&& {PANEL}.context.isReady && {PANEL}.sessionContext.session)"
    )
    try:
        wait(lambda: tab.ask(there), 900, f"{path} did not open")
    except TimeoutError:
        tab.picture(pictures / f"{Path(path).stem}-did-not-open.png")
        raise
    tab.ask(f"{PANEL}.sessionContext.ready.then(() => jupyterapp.shell.activateById({PANEL}.id))")
    yield run_all(tab, path, {}, minutes)
    take_pictures(tab, path, pictures, "light")
    for name, value in change.items():
        source = tab.ask(f"{PARAMETERS}.sharedModel.getSource()")
        new = json.dumps(change_source(source, name, value))
        tab.ask(f"{PARAMETERS}.sharedModel.setSource({new})")
    if change:
        yield run_all(tab, path, change, minutes)
    tab.ask("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    take_pictures(tab, path, pictures, "dark")
    tab.ask("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
    tab.ask(f"{PANEL}.sessionContext.shutdown().then(() => {PANEL}.close())")


PARAMETERS = f"{PANEL}.content.widgets.map((w) => w.model)" \
             ".find((m) => (m.getMetadata('tags') || []).includes('parameters'))"  # fmt: skip


def run_all(tab: Tab, path: str, change: dict[str, str], minutes: float) -> dict[str, Any]:
    """Run All Cells as the menu does; how long it took, what was shown, what went wrong."""
    started = time.monotonic()
    tab.ask("window.ended = false; jupyterapp.commands.execute('notebook:run-all-cells')"
            ".finally(() => { window.ended = true; }); true")  # fmt: skip
    kernel = f"{PANEL}.sessionContext.session.kernel"
    while not tab.ask(f"window.ended && {kernel}.status === 'idle'"):
        time.sleep(0.5)
        if time.monotonic() - started > 60 * minutes:  # as with the button for stopping
            tab.ask(f"{kernel}.interrupt().then(() => true)")
            time.sleep(20)
    seconds = time.monotonic() - started
    shown = [output for cell in outputs(tab) for output in cell]
    flat = [kind for output in shown for kind in output.get("data", {})]
    ran = f"{PANEL}.content.widgets.filter((w) => w.model.executionCount).length"
    wrong = [f"{o['ename']}: {o['evalue']}" for o in shown if o["output_type"] == "error"]
    return {"notebook": path, "changed": change, "problem": "; ".join(wrong),
            "seconds": round(seconds, 1), "cells": tab.ask(ran),
            "figures": flat.count("image/png"), "tables": flat.count("text/html"),
            "stderr": "".join("".join(o["text"]) for o in shown if o.get("name") == "stderr"),
            }  # fmt: skip


def outputs(tab: Tab) -> list[list[dict[str, Any]]]:
    """What stands below each cell, without the pictures' bytes."""
    answer: list[list[dict[str, Any]]] = tab.ask(
        f"{PANEL}.content.widgets.map((w) => !w.model.outputs ? [] : w.model.outputs.toJSON().map("
        "(o) => o.data ? {...o, data: Object.fromEntries(Object.keys(o.data).map((k) => [k, 1]))}"
        " : o))")  # fmt: skip
    return answer


def take_pictures(tab: Tab, path: str, pictures: Path, scheme: str) -> None:
    """The top of the notebook and each cell that shows a figure, a table or an error."""
    shows = [{kind for o in cell for kind in (o["output_type"], *o.get("data", {}))}
             for cell in outputs(tab)]  # fmt: skip
    shown = [n for n, kinds in enumerate(shows) if {"image/png", "text/html", "error"} & kinds]
    for number in [0, *shown]:
        tab.ask(f"(async () => {{ {PANEL}.content.activeCellIndex = {number}; await "
                f"{PANEL}.content.scrollToItem({number}, 'start'); await new Promise((r) => "
                "setTimeout(r, 600)); })()")  # fmt: skip
        tab.picture(pictures / f"{Path(path).stem}-{scheme}-{number:02d}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebooks", nargs="+", help="numbers such as 25, or all")
    parser.add_argument("--api", action="store_true", help="no browser: the requests it would send")
    parser.add_argument("--change", action="append", default=[], metavar="NN:NAME=VALUE")
    parser.add_argument("--pictures", type=Path, default=ROOT / "build" / "lab")
    parser.add_argument("--home", type=Path, default=ROOT, help="the project's folder")
    parser.add_argument("--minutes", type=float, default=60, help="at most, for one notebook")
    options = parser.parse_args()
    names = sorted(path.name for path in (options.home / "notebooks").glob("*.ipynb"))
    chosen = [n for n in names if "all" in options.notebooks or n[:2] in options.notebooks]
    changes: dict[str, dict[str, str]] = {}
    for text in options.change:
        number, _, rest = text.partition(":")
        changes.setdefault(number, {}).update([rest.split("=", 1)])
    failed = False
    with ExitStack() as stack:
        server = stack.enter_context(lab(options.home.resolve()))
        tab = None if options.api else stack.enter_context(chromium())
        for name in chosen:
            path, change = f"notebooks/{name}", changes.get(name[:2], {})
            if tab is not None:
                failed |= tell(
                    run_in_browser(server, tab, path, change, options.pictures, options.minutes)
                )
                continue
            for changed in [{}, change] if change else [{}]:
                failed |= tell([run_by_requests(server, path, changed, 60 * options.minutes)])
    return int(failed)


def tell(answers: Iterable[dict[str, Any]]) -> bool:
    failed = False
    for answer in answers:
        print(json.dumps(answer, ensure_ascii=False), flush=True)
        failed |= bool(answer["problem"])
    return failed


if __name__ == "__main__":
    sys.exit(main())
