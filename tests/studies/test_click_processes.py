"""Click models in two real processes, as ``training: {processes: 2}`` of the ladder asks for."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.models.ladder import build_click_model, sizes_of  # noqa: E402
from lib.studies.click_view import ViewSettings, view_clicks  # noqa: E402
from lib.studies.clicks import LossSettings, fit_click_model  # noqa: E402
from lib.studies.retrieval import TowerLoss, list_catalogue  # noqa: E402
from lib.train.plan import Plan  # noqa: E402
from tests.studies.clicklog import Log  # noqa: E402

MODEL = {"d_embedding": 4, "n_cross": 1, "hidden": [8], "dropout": 0.0}


def history(processes: int) -> list[dict[str, float]]:
    torch.manual_seed(1)
    view = view_clicks(Log(), ViewSettings())
    model = build_click_model("dcnv2", sizes_of(view.layout, max_len=0), MODEL)
    plan = Plan(learning_rate=1e-2, seed=1, epochs=2, batch=64, metric="auc", processes=processes)
    settings = LossSettings(kind="plain")
    fitted = fit_click_model(model, view, view.rows("train"), view.rows("valid"), plan, settings)
    return fitted[1].history


@pytest.mark.slow
def test_a_click_model_trains_in_two_processes_as_in_one(tmp_path):
    """The launcher starts copies of the main module, hence a script of its own."""
    command = [sys.executable, __file__, str(tmp_path / "history.json")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads((tmp_path / "history.json").read_text())
    for two, one in zip(told, history(1), strict=True):
        for name in one.keys() - {"seconds"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4), name


def test_the_loss_of_the_towers_can_be_sent_to_another_process():
    loss = TowerLoss(list_catalogue(Log(), ("ad",)), click_weight=0.5)
    again = pickle.loads(pickle.dumps(loss))
    assert again.click_weight == 0.5
    np.testing.assert_array_equal(again.share.numpy(), loss.share.numpy())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(history(2)))
