"""pyproject.toml, requirements.lock and environment.yml say the same, and name no address."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PIN = re.compile(r"([a-z0-9][a-z0-9.-]*)==([0-9][^\s;]*)\Z")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines):
    found = {}
    for line in lines:
        match = PIN.match(line)
        assert match, f"{line!r} is not name==version"
        assert normal(match[1]) not in found, f"{line!r} is pinned twice"
        found[normal(match[1])] = match[2]
    return found


@pytest.fixture
def locked():
    lines = LOCK.read_text("utf-8").splitlines()
    return pins([line for line in lines if line and not line.startswith("#")])


@pytest.fixture
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_conda_users_get_the_same_pins(locked):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, python = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    own, *others = python["pip"]
    assert own == "-e ."
    assert pins(others) == locked


def test_every_direct_requirement_is_locked_within_its_range(locked, project):
    from packaging.requirements import Requirement

    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        version = locked.get(normal(requirement.name))
        assert version, f"{requirement.name} is not in requirements.lock: run `make lock`"
        assert requirement.specifier.contains(version), f"{text}, but the lock has {version}"


def test_torch_is_pinned_and_accelerator_packages_are_left_to_its_wheel(locked, project):
    assert "torch==2.13.0" in project["dependencies"]
    assert locked["torch"] == "2.13.0"
    assert not [name for name in locked if name.startswith(("nvidia-", "cuda-", "triton"))]


@pytest.mark.parametrize("name", ["requirements.lock", "environment.yml", "pyproject.toml"])
def test_no_index_address_is_written(name):
    text = (ROOT / name).read_text("utf-8")
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|-f http", text)
    assert "://" not in text
