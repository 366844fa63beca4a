"""Disks that are full or cannot be written: the last good result stays, and the message counts."""

import os
import resource
import subprocess

import pytest

pytestmark = pytest.mark.slow

SAVING = ("  saves: {notebook: 00_save_block, params: {size: %d}}\n")  # fmt: skip
SMALL, LARGE = 1_000_000, 6_000_000


@pytest.fixture
def saver(world):
    world.notebook("00_save_block",
                   'import os\n\npath = run.path("block.bin")\nwith open(path, "wb") as file:\n'
                   '    for _ in range(size // 500_000):\n        file.write(bytes(500_000))\n        file.flush()',
                   "run.finish()", parameters="size: int = 1_000_000  # 1..: bytes")  # fmt: skip
    world.profile(SAVING % SMALL)
    return world


@pytest.fixture
def small_disk(saver):
    """A store on a disk of its own with 8 MB."""
    place = saver.root / "data" / "store"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield saver
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_keeps_the_last_result_and_tells_how_much_is_missing(small_disk):
    assert small_disk.run().returncode == 0
    good = small_disk.current("saves")
    small_disk.profile(SAVING % (2 * LARGE))
    answer = small_disk.run()
    assert answer.returncode == 1
    assert "No space left on device" in answer.stdout
    assert "MB are missing" in answer.stdout
    assert small_disk.current("saves") == good
    assert small_disk.store.damage(good, hashes_of(small_disk)) == []
    assert small_disk.store.failure("saves") is not None
    small_disk.profile(SAVING % SMALL)
    assert small_disk.run().returncode == 0


def hashes_of(world):
    from lib.pipeline.keys import Hashes

    return Hashes(world.home.store, trust=False)


def test_a_limit_on_the_size_of_files_is_told_the_same_way(saver):
    assert saver.run().returncode == 0
    good = saver.current("saves")
    saver.profile(SAVING % LARGE)
    runner = subprocess.run(
        saver.command("demo"), env=saver.environment(), capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
    )  # fmt: skip
    assert runner.returncode == 1
    assert "File too large" in runner.stdout
    assert "MB are missing" in runner.stdout
    assert saver.current("saves") == good


def test_a_store_that_cannot_be_written_still_serves_what_is_complete(small_disk):
    assert small_disk.run().returncode == 0
    place = str(small_disk.root / "data" / "store")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    assert small_disk.run().returncode == 0
    assert small_disk.run("status").returncode == 0
    assert "FAIL  store: give yourself write permission" in small_disk.run("doctor").stdout
    small_disk.profile(SAVING % LARGE)
    answer = small_disk.run()
    assert answer.returncode in {1, 3}
    assert "Read-only file system" in answer.stdout
    assert "Traceback" not in answer.stderr
