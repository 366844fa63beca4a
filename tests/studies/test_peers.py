"""The other side of a benchmark: absent and said so, alive between rounds, or dead with its words."""

import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "die":
        sys.exit("out of cheese")
    print(json.dumps({"steps": request["steps"] * 2}), flush=True)
"""


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import peers

    return peers


def test_a_peer_that_is_not_there_is_told_in_a_line(peers, tmp_path, capsys):
    assert peers.find_peer("recbole", tmp_path / "python") is None
    told = json.loads(capsys.readouterr().out)
    assert (told["peer"], told["measured"]) == ("recbole", False)
    assert peers.find_peer("no_such_package", Path(sys.executable)) is None
    assert "make bench" in json.loads(capsys.readouterr().out)["problem"]
    assert peers.find_peer("json", Path(sys.executable)) == Path(sys.executable)


def test_a_session_answers_in_turn_and_a_dead_one_leaves_its_last_words(peers):
    session = peers.PeerSession([sys.executable, "-c", ECHO])
    assert session.told == {"ready": True}
    assert session.ask(do="train", steps=3) == {"steps": 6}
    assert session.ask(do="train", steps=5) == {"steps": 10}
    with pytest.raises(RuntimeError, match="out of cheese"):
        session.ask(do="die")
    session.close()


def test_ratios_are_taken_round_by_round(peers):
    told = peers.ratios([4.0, 9.0, 8.0], [2.0, 3.0, 2.0])
    assert told == {"ratio": 3.0, "range": [2.0, 4.0], "rounds": 3}
    assert peers.medians([{"a": 1, "b": "x"}, {"a": 5, "b": "y"}]) == {"a": 3.0}


def test_the_lock_pins_exact_versions_without_addresses():
    lines = (TOOLS / "peers.lock").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 and "/" not in line and "+" not in line for line in pins)
    assert {"recbole==1.2.1", "fuxictr==2.3.10", "torch==2.13.0"} <= set(pins)
