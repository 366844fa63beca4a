"""An input that ends in ``?``: read where it is there, no obstacle where it is not."""

import pytest

from lib.pipeline.keys import Hashes
from lib.pipeline.plan import plan
from lib.pipeline.profile import load_profile

READ = 'x = json.loads(run.input("x").read_text()) if run.has_input("x") else 0'


@pytest.fixture
def lenient(pair):
    """``product`` may run without ``numbers``."""
    pair.profile("  numbers: {notebook: 00_make_numbers}\n"
                 "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers/out.json?}}\n")  # fmt: skip
    return pair


def test_the_mark_is_no_part_of_the_reference_and_the_order_stays(lenient):
    profile = load_profile(lenient.home, "demo")
    node = profile.nodes["product"]
    assert node.inputs == {"x": "numbers/out.json"}
    assert (node.needs, node.requires) == ({"numbers"}, set())
    assert profile.order() == ["numbers", "product"]


def test_what_is_missing_is_left_out_and_its_arrival_changes_the_key(lenient):
    before = lenient.examine("product")
    assert (before.state, dict(before.inputs)) == ("run", {})
    lenient.complete("numbers", "[3]")
    after = lenient.examine("product")
    assert list(after.inputs) == ["x"]
    assert after.key != before.key


def test_a_node_that_failed_last_is_left_out_though_an_older_result_is_there(lenient):
    lenient.complete("numbers", "[3]")
    lenient.store.folder("numbers").joinpath("failed").mkdir()
    lenient.store.folder("numbers").joinpath("failed", "error.json").write_text("{}")
    assert lenient.store.failure("numbers") is not None
    assert dict(lenient.examine("product").inputs) == {}


def test_a_blocked_node_blocks_only_those_that_require_it(lenient):
    lenient.profile("  numbers: {notebook: 00_make_numbers, inputs: {raw: raw:nowhere}}\n"
                    "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers?}}\n"
                    "  strict: {notebook: 10_multiply_numbers, inputs: {x: numbers}}\n")  # fmt: skip
    profile = load_profile(lenient.home, "demo")
    steps = plan(lenient.home, profile, profile.order(), Hashes(lenient.home.store))
    states = {name: step.state for name, step in steps.items()}
    assert states == {"numbers": "blocked", "product": "run", "strict": "blocked"}


@pytest.mark.slow
def test_behind_a_failure_the_runner_goes_on_without_it(world):
    world.notebook("00_make_numbers", 'raise ValueError("no numbers")', "run.finish()")
    world.notebook("10_multiply_numbers", READ, 'run.save("out.json", [x])', "run.finish()")
    world.profile("  numbers: {notebook: 00_make_numbers}\n"
                  "  product: {notebook: 10_multiply_numbers, inputs: {x: numbers?}}\n")  # fmt: skip
    done = world.run("demo", "--keep-going")
    assert done.returncode != 0
    assert world.value("product") == [0]
