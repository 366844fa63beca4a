"""The runner's own times: ``python tests/pipeline/measure.py`` prints a table.

Thirty nodes in a chain and one small notebook, in a temporary project. Best of five, because the
claim is about the code and not about what else the machine does.
"""

import importlib.util
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
KERNEL = """import time
from jupyter_client.manager import start_new_kernel
began = time.perf_counter()
manager, client = start_new_kernel(kernel_name="python3")
client.execute("1", reply=True)
client.stop_channels(); manager.shutdown_kernel(now=True)
print(time.perf_counter() - began)"""


def load_world():
    spec = importlib.util.spec_from_file_location("worlds", HERE / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.World


def best(act, rounds=5):
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return min(times)


def main():
    with tempfile.TemporaryDirectory() as folder:
        world = load_world()(Path(folder) / "chain")
        world.notebook("00_make_numbers", "run.finish()", parameters="steps: int = 1  # 0..: n")
        lines = [f"  n{n}: {{notebook: 00_make_numbers, params: {{steps: {n}}}"
                 + (f", inputs: {{x: n{n - 1}/out.json}}" if n else "") + "}\n"
                 for n in range(30)]  # fmt: skip
        world.profile("".join(lines))
        for n in range(30):
            world.complete(f"n{n}", str(n))
        whole = [sys.executable, str(HERE.parents[1] / "run_all.py"), "demo"]  # pages included
        idle = partial(
            subprocess.run, whole, env=world.environment(), capture_output=True, check=True
        )
        idle()
        rows = [("a run with nothing to do, 30 nodes", best(idle), 2.0),
                ("--explain on 30 nodes", best(lambda: world.run("demo", "--explain")), 2.0),
                ("run-one of a complete node", best(lambda: world.run("run-one", "n29")), 0.5)]  # fmt: skip

        small = load_world()(Path(folder) / "small")
        small.notebook("00_do_little", 'run.save("out.json", 1)', "run.finish()")
        small.profile("  little: {notebook: 00_do_little}\n")
        kernel = min(float(subprocess.run([sys.executable, "-W", "ignore", "-c", KERNEL],
                                          capture_output=True, text=True, check=True).stdout)
                     for _ in range(5))  # fmt: skip
        costs = []
        for _ in range(5):
            began = time.perf_counter()
            answer = small.run("demo", "--force")
            assert answer.returncode == 0, answer.stdout
            wall = time.perf_counter() - began
            cells = sum(cell["seconds"] for cell in small.current("little").record["cells"])
            costs.append(wall - cells - kernel)
        rows.append(("own cost per notebook beyond kernel start and cells", min(costs), 1.0))
    for what, seconds, limit in rows:
        sys.stdout.write(f"{what:<55} {seconds:6.2f} s   (at most {limit:g} s)\n")
    sys.stdout.write(f"(kernel start and stop alone: {kernel:.2f} s)\n")


if __name__ == "__main__":
    main()
