"""A real JupyterLab for the project in a folder, and the requests it sends to run a notebook.

    with lab(home) as server:
        run_by_requests(server, "notebooks/13_measure_baselines.ipynb", {}, seconds=600)

Used by ``tools/open_in_lab.py`` and by a test.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import websocket

from lib.pipeline.surroundings import FIXED

__all__ = ["Server", "change_source", "lab", "run_by_requests", "wait"]


SETTINGS = {  # no question about news on the screen, and no notebook changed on disk
    "apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false"}',
    "docmanager-extension/plugin.jupyterlab-settings": '{"autosave": false}',
}


class Server:
    """A running JupyterLab: its address and the secret that opens it."""

    def __init__(self, port: int, token: str) -> None:
        self.address, self.token = f"127.0.0.1:{port}", token

    def ask(self, path: str, body: object = None, method: str = "") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{self.address}/{path}", data, method=method or ("POST" if data else "GET"),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@contextmanager
def lab(home: Path, *options: str) -> Iterator[Server]:
    """JupyterLab on a free port; its settings and workspaces live in a temporary folder."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        for place, text in SETTINGS.items():
            file = Path(folder) / "s" / "@jupyterlab" / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                   f"--port={port}", "--ServerApp.port_retries=0", f"--notebook-dir={home}",
                   f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True",
                   "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                   *options]  # fmt: skip
        environment = {"JUPYTER_CONFIG_DIR": folder, "JUPYTER_RUNTIME_DIR": folder,
                       "JUPYTERLAB_SETTINGS_DIR": f"{folder}/s",
                       "JUPYTERLAB_WORKSPACES_DIR": f"{folder}/w"}  # fmt: skip
        environment |= FIXED | {"PYTHONPATH": str(home), "LINGREC_HOME": str(home)}
        quiet = subprocess.DEVNULL
        with subprocess.Popen(
            command, env=os.environ | environment, cwd=home, stdout=quiet, stderr=quiet
        ) as process:
            try:
                server = Server(port, token)
                wait(lambda: server.ask("api/status"), 180, "JupyterLab did not start")
                yield server
            finally:
                process.terminate()
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()


def wait(question: Any, seconds: float, problem: str) -> Any:
    """The first answer that is neither empty nor an error of the connection."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if answer := question():
                return answer
        except OSError:
            pass
        time.sleep(0.3)
    raise TimeoutError(problem)


def change_source(source: str, name: str, value: str) -> str:
    """The parameters cell with another value for one name; type and comment stay.

    >>> change_source("draws: int = 20  # 1..: draws\\nseed: int = 1", "draws", "50")
    'draws: int = 50  # 1..: draws\\nseed: int = 1'
    """
    lines = source.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"{name}:"):
            left, _, right = line.partition(" = ")
            comment = f"  #{right.partition('  #')[2]}" if "  #" in right else ""
            lines[number] = f"{left} = {value}{comment}"
            return "\n".join(lines)
    raise SystemExit(f"the parameters cell has no {name!r}")


def run_by_requests(
    server: Server, path: str, change: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    """What JupyterLab sends for Run All Cells: a session, then each code cell to its kernel."""
    content = server.ask(f"api/contents/{path}?content=1")["content"]
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    asked = {"path": path, "type": "notebook", "name": path, "kernel": {"name": "python3"}}
    session = server.ask("api/sessions", asked)
    place = f"ws://{server.address}/api/kernels/{session['kernel']['id']}/channels"
    started, shown = time.monotonic(), []
    try:
        with closing(websocket.create_connection(
            f"{place}?token={server.token}", timeout=seconds)) as kernel:  # fmt: skip
            for cell in cells:
                source = cell["source"]
                if "parameters" in cell["metadata"].get("tags", []):
                    for name, value in change.items():
                        source = change_source(source, name, value)
                answer = execute(kernel, source, session["id"])
                shown += answer.pop("shown")
                if answer["status"] != "ok":
                    break
    finally:
        server.ask(f"api/sessions/{session['id']}", method="DELETE")
    return {"notebook": path, "changed": change, "problem": answer.get("problem", ""),
            "seconds": round(time.monotonic() - started, 1), "figures": shown.count("image/png"),
            "tables": shown.count("text/html")}  # fmt: skip


def execute(kernel: websocket.WebSocket, source: str, session: str) -> dict[str, Any]:
    """One cell; what it displayed, by kind, and how it ended."""
    message = uuid.uuid4().hex
    header = {"msg_id": message, "msg_type": "execute_request", "session": session,
              "username": "", "version": "5.3"}  # fmt: skip
    content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False,
               "stop_on_error": True, "user_expressions": {}}  # fmt: skip
    kernel.send(json.dumps({"header": header, "parent_header": {}, "metadata": {},
                            "content": content, "channel": "shell", "buffers": []}))  # fmt: skip
    answer: dict[str, Any] = {"shown": []}
    idle = False
    while not (idle and "status" in answer):
        said = json.loads(kernel.recv())
        if said["parent_header"].get("msg_id") != message:
            continue
        kind, content = said["msg_type"], said["content"]
        idle = idle or (kind == "status" and content["execution_state"] == "idle")
        if kind == "execute_reply":
            answer["status"] = content["status"]
        elif kind == "error":
            answer["problem"] = f"{content['ename']}: {content['evalue']}"
        elif kind in {"display_data", "execute_result"}:
            answer["shown"] += list(content["data"])
    return answer
