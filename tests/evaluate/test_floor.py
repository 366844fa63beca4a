"""The measures stand on NumPy alone: a page or a small machine can use them without torch."""

import pkgutil
import subprocess
import sys

import pytest

import lib.evaluate


@pytest.mark.slow
def test_no_module_of_evaluate_loads_torch_or_another_package_of_lib():
    names = [
        f"lib.evaluate.{module.name}" for module in pkgutil.iter_modules(lib.evaluate.__path__)
    ]
    code = (
        f"import sys, importlib; [importlib.import_module(n) for n in {names}]; "
        "print([m for m in sys.modules if m.split('.')[0] == 'torch' or m.startswith('lib.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.strip(" '[]\n") for name in done.stdout.split(",")}
    assert {name for name in loaded if not name.startswith("lib.evaluate")} == set()
