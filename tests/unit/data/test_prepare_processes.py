"""Properties that need real processes: interruption, continuation, a full disk, memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from harness.patience import wait_until
from harness.photographs import image_file
from harness.processes import Started, start
from PIL import Image

from lediflow.data.prepare import PrepareConfig, prepare

pytestmark = pytest.mark.processes

SIZE, PER_SHARD = 16, 8


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """240 photographs that differ, and take some milliseconds each."""
    folder = tmp_path_factory.mktemp("photographs")
    photograph = image_file(0, "JPEG", side=400)
    for number in range(240):
        (folder / f"{number}.jpg").write_bytes(photograph + number.to_bytes(2))  # decoders stop before
    return folder


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory) -> dict[str, bytes]:
    """The shards of one uninterrupted process."""
    output = tmp_path_factory.mktemp("expected")
    prepare_in_one(source, output)
    return files(output)


def prepare_in_one(source: Path, output: Path) -> None:
    options = {"size": SIZE, "shard_samples": PER_SHARD, "workers": 1}
    prepare(PrepareConfig(source=str(source), output=str(output), **options))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def options(source: Path, output: Path) -> list[str]:
    return [f"source={source}", f"output={output}", f"size={SIZE}", f"shard_samples={PER_SHARD}", "workers=2"]


QUIET = """
import sys
import time
from lediflow.data.prepare import PrepareConfig, prepare
source, output, size, shard_samples, workers = sys.argv[1:]
prepare(PrepareConfig(source=source, output=output, size=int(size), shard_samples=int(shard_samples),
                      workers=int(workers)))
"""


def started_quietly(source: Path, output: Path, before: str = "") -> Started:
    """Preparing without the command around it, which takes seconds to start."""
    script = [sys.executable, "-c", before + QUIET]
    return Started([*script, str(source), str(output), str(SIZE), str(PER_SHARD), "2"])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_with_workers_leaves_no_processes_and_the_next_run_ends_the_same(
    source, expected, tmp_path, stop
):
    if stop is signal.SIGINT:
        started = start("lediflow.prepare", *options(source, tmp_path))
    else:
        started = started_quietly(source, tmp_path)
    started.wait_until(lambda: len(list(tmp_path.glob("*.tar"))) > 2)
    os.killpg(started.process.pid, signal.SIGSTOP)  # the work must not end while its workers are looked up
    workers = psutil.Process(started.process.pid).children(recursive=True)
    if stop is signal.SIGINT:
        os.killpg(started.process.pid, stop)  # a terminal's Ctrl-C reaches every process of its group
    else:
        started.send(stop)
    os.killpg(started.process.pid, signal.SIGCONT)
    ended = started.wait()
    assert ended.status == (130 if stop is signal.SIGINT else -stop)
    assert "Traceback" not in ended.output
    assert all_gone(workers, seconds=20)
    assert not list(tmp_path.glob(".*.partial"))  # the workers took theirs away
    prepare_in_one(source, tmp_path)
    assert files(tmp_path) == expected


def all_gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether they end in time; a zombie process counts as ended."""

    def has_ended(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return wait_until(lambda: all(map(has_ended, processes)), seconds)


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)
"""


def test_a_full_disk_removes_the_partial_shard_and_the_command_continues_with_room(
    source, expected, tmp_path
):
    shard = next(content for name, content in expected.items() if name.endswith(".tar"))
    refused = started_quietly(source, tmp_path, LIMITED.format(limit=len(shard) // 2)).wait()
    assert f"UserError: cannot write {tmp_path}/images-" in refused.output
    assert (
        "File too large; the file system or a limit (ulimit -f) allows no files of that size"
        in refused.output
    )
    assert [path.name for path in tmp_path.iterdir()] == [".parts"]
    prepare_in_one(source, tmp_path)
    assert files(tmp_path) == expected


PEAK = """
import sys
from pathlib import Path
from lediflow.data.prepare import PrepareConfig, prepare
for source in sys.argv[1:]:
    prepare(PrepareConfig(source=source, output=f"{source}.out", size=8, shard_samples=64, workers=1))
    # ru_maxrss would begin with what the parent had
    print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def peaks_in_mebibytes(*sources: Path) -> list[float]:
    """The largest memory of one process up to the end of each source, which it prepares one after the other."""
    done = subprocess.run([sys.executable, "-c", PEAK, *sources], capture_output=True, text=True, check=True)
    return [int(line) / 1024 for line in done.stdout.split()]


def test_memory_does_not_grow_with_the_bytes_of_the_images(tmp_path):
    def folder_of(images: int) -> Path:
        folder = tmp_path / f"{images}"
        folder.mkdir()
        for number in range(images):
            # 100 kB behind the picture's end, read but never decoded
            (folder / f"{number}.png").write_bytes(image_file(number) + bytes(100_000))
        return folder

    few, many = peaks_in_mebibytes(folder_of(100), folder_of(800))
    assert many - few < 4  # the images hold 70 MB more


def test_a_large_photograph_needs_memory_for_its_pixels_once_and_a_large_jpeg_little(tmp_path):
    side = 5000
    decoded = 4 * side**2 / 2**20

    def folder_of(name: str, image: Image.Image, **options) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        image.save(folder / name, **options)
        return folder

    # a peak includes those before it, so the one that may need most is last
    small, jpeg, png = peaks_in_mebibytes(
        folder_of("small.png", Image.new("RGBA", (8, 8))),
        folder_of("large.jpg", Image.new("RGB", (side, side))),
        folder_of("large.png", Image.new("RGBA", (side, side)), compress_level=1),
    )
    assert png - small < 1.3 * decoded
    assert jpeg - small < 0.2 * decoded
