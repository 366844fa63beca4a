"""A stub of the model hub on loopback, and a project that holds one profile and nothing else."""

import copy
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from lib.pipeline.profile import CODE_ROOT

Files = Mapping[str, bytes]


def handler(files: Mapping[str, tuple[str, bytes]]) -> type[BaseHTTPRequestHandler]:
    """Serves files (commit, content) by the path under which the hub's client asks for them."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            if self.path not in files:
                self.send_error(404)
                return
            commit, content = files[self.path]
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *values: object) -> None:
            """Quiet."""

    return Hub


@contextmanager
def serve(profile: str, content: Mapping[str, Files]) -> Iterator[str]:
    """Whatever the profile fetches, by the kind or the repository it belongs to -> the address."""
    files = {}
    wishes = yaml.safe_load((CODE_ROOT / "params" / f"{profile}.yaml").read_text("utf-8"))["fetch"]
    for wish in wishes:
        prefix = "/datasets" if wish["kind"] == "dataset" else ""
        own = content.get(wish["repo"]) or content[wish["kind"]]
        for file in wish["files"]:
            path = f"{prefix}/{wish['repo']}/resolve/{wish['revision']}/{file['path']}"
            commit = wish["revision"] if len(wish["revision"]) == 40 else "0" * 40
            files[path] = (commit, own[file["path"]])
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(files))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_project(root: Path, profile: str) -> Path:
    """A project with this profile and all notebooks, and nothing in data/."""
    for name in ("params", "notebooks", "data/raw"):
        (root / name).mkdir(parents=True)
    own = f"params/{profile}.yaml"
    (root / own).write_text((CODE_ROOT / own).read_text("utf-8"), "utf-8")
    for notebook in (CODE_ROOT / "notebooks").glob("*.ipynb"):
        (root / "notebooks" / notebook.name).write_bytes(notebook.read_bytes())
    return root


def cut_to_size(
    project: Path, profile: str, small: Mapping[str, Mapping[str, object]], *, cpu: int = 0
) -> None:
    """The profile again with these parameters, and with so many cores for each node."""
    path = project / "params" / f"{profile}.yaml"
    told = yaml.safe_load(path.read_text("utf-8"))
    for node, params in small.items():
        own = told["nodes"][node].setdefault("params", {})
        own.update(copy.deepcopy(dict(params)))  # a list used twice would be an anchor
    for node in told["nodes"].values():
        if cpu:
            node["resources"] = {**node.get("resources", {}), "cpu": cpu}
    path.write_text(yaml.safe_dump(told, sort_keys=False), "utf-8")


def command(project: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LINGREC_HOME": str(project), "COLUMNS": "200"} | more
    return subprocess.run(
        [sys.executable, str(CODE_ROOT / "run_all.py"), *words], env=environment, cwd=project,
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip


def tiny_qwen(folder: Path, family: str, texts: list[str]) -> Files:
    """The files of a random model of two layers with a tokenizer learnt from ``texts``."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    from lib.language.tokens import train_tokenizer

    tokenizer = train_tokenizer(texts * 20, n_tokens=300)
    torch.manual_seed(1)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
        "tie_word_embeddings": True, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None,
    }  # fmt: skip
    model = (Qwen2ForCausalLM(Qwen2Config(**shape)) if family == "qwen2"
             else Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8)))  # fmt: skip
    model.to(torch.bfloat16).save_pretrained(folder)  # as the hub has it
    tokenizer.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
