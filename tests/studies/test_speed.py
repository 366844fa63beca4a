"""Benchmarks run as scripts: their answers are read, and a failure is an answer too."""

import pytest

from lib.studies import speed


@pytest.fixture
def tools(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "TOOLS", tmp_path)
    (tmp_path / "bench_good.py").write_text(
        'import sys\nprint("hello")\nprint(\'{"case": "a", "ours": {"seconds": 2.0}, "same": true}\')\n'
        "print('{\"rows\": %s}' % sys.argv[1])\n"
    )
    (tmp_path / "bench_bad.py").write_text(
        'print(\'{"rows": 1}\')\nraise SystemExit("no peer here")\n'
    )
    (tmp_path / "bench_slow.py").write_text(
        "import time\nprint('{\"rows\": 2}', flush=True)\ntime.sleep(60)\n"
    )
    return tmp_path


def test_answers_become_lines_of_numbers(tools):
    answer = speed.run_script("bench_good.py 7", minutes=1)
    assert answer["problem"] == ""
    table = speed.measured_table([answer])
    assert table.rows() == [
        ("python tools/bench_good.py 7", "a", "ours.seconds", 2.0),
        ("python tools/bench_good.py 7", "2", "rows", 7.0),
    ]


def test_a_failed_or_endless_script_keeps_what_it_said_and_tells_why(tools):
    bad = speed.run_script("bench_bad.py", minutes=1)
    assert (bad["answers"], bad["problem"]) == ([{"rows": 1}], "no peer here")
    slow = speed.run_script("bench_slow.py", minutes=0.02)
    assert slow["answers"] == [{"rows": 2}]
    assert "stopped after 0.02 minutes" in slow["problem"]


def test_what_was_not_there_to_be_measured_is_told(tools):
    (tools / "bench_lonely.py").write_text(
        'print(\'{"peer": "recbole", "measured": false, "problem": "no environment"}\')\n'
        'print(\'{"case": "ours", "seconds": 1.5}\')\n'
    )
    answer = speed.run_script("bench_lonely.py", minutes=1)
    assert (answer["problem"], answer["absent"]) == ("", "recbole: no environment")
    assert speed.measured_table([answer])["value"].to_list() == [1.5]
    assert speed.run_script("bench_good.py 7", minutes=1)["absent"] == ""


def test_an_unknown_script_names_the_known_ones(tools):
    with pytest.raises(ValueError, match=r"bench_bad\.py"):
        speed.run_script("bench_none.py", minutes=1)


def test_the_machine_is_described_without_names_of_people_or_hosts():
    described = speed.describe_machine()
    assert set(described) == {"cores", "processor", "gpu", "python", "torch"}
