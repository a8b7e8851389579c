# SPDX-License-Identifier: Apache-2.0
"""The class for a character device that the guide in the repository's README shows."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.testing import StampedWriter

termios = pytest.importorskip("termios", reason="device files are read on POSIX systems")

README = Path(__file__).resolve().parents[3] / "README.md"
HWRNG = Path("/dev/hwrng")
LIMIT = "time.monotonic() + 2.0"
"""When the class gives up; a busy machine may take longer."""

pytestmark = pytest.mark.skipif(not README.exists(), reason="the guide is not in the archive")


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Returns what opens the device of the guide."""
    (snippet,) = re.findall(
        r"<!-- template: Device -->\n```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL
    )
    assert snippet.count(LIMIT) == 1
    devices = []

    def open_device(path: Path, limit_s: float = 60.0) -> Any:
        namespace: dict[str, Any] = {}
        exec(snippet.replace(LIMIT, f"time.monotonic() + {limit_s}"), namespace)
        device = namespace["Device"](str(path))
        device.open()
        devices.append(device)
        return device

    yield open_device
    for device in devices:
        device.close()


@pytest.fixture
def terminal() -> Iterator[tuple[int, Path]]:
    """A terminal in the state in which the kernel opens one, and its far end."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    yield master, Path(os.ttyname(slave))
    os.close(slave)
    os.close(master)


def test_a_serial_port_alters_no_byte_and_keeps_none_from_before(
    opened: Callable[..., Any], terminal: tuple[int, Path]
) -> None:
    master, path = terminal
    device = opened(path)
    generator = StampedWriter(lambda piece: os.write(master, piece))
    try:
        for _ in range(2):
            generator.await_bytes(9_000)
            requested_ns = time.monotonic_ns()
            data = device.measure(8192)
            # Found as it was written. A value of 256 is absent with a probability below 1e-11.
            assert generator.stale_bytes(data, requested_ns) == 0
            assert len(set(data)) == 256
    finally:
        generator.stop()


def test_its_speed_stays(opened: Callable[..., Any], terminal: tuple[int, Path]) -> None:
    _, path = terminal
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
    mode = termios.tcgetattr(descriptor)
    mode[4] = mode[5] = termios.B115200
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)
    opened(path)
    assert termios.tcgetattr(descriptor)[4:6] == [termios.B115200, termios.B115200]
    os.close(descriptor)


def test_a_device_that_says_eagain_is_waited_for(
    opened: Callable[..., Any], tmp_path: Path
) -> None:
    """A FIFO says it, too, as long as it is empty and somebody may still write."""
    path = tmp_path / "device"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    device = opened(path)
    with pytest.raises(BlockingIOError):
        os.read(descriptor, 1)
    refused = threading.Event()
    os_read = os.read

    def noted(file: int, count: int) -> bytes:
        try:
            return os_read(file, count)
        except BlockingIOError:
            refused.set()
            raise

    def deliver_after_a_refusal() -> None:
        assert refused.wait(60)
        os.write(descriptor, bytes(range(200)))

    writer = threading.Thread(target=deliver_after_a_refusal)
    writer.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "read", noted)
        assert device.measure(72) == bytes(range(128, 200))
    writer.join()
    with pytest.raises(TimeoutError, match="0 of 128 bytes"):
        opened(path, 0.01).measure(1)
    os.close(descriptor)


def test_a_device_that_is_gone_is_an_oserror(opened: Callable[..., Any]) -> None:
    """That is what the kit reports as *unavailable*; termios has errors of its own."""
    master, slave = os.openpty()
    device = opened(Path(os.ttyname(slave)))
    os.close(master)
    os.close(slave)
    with pytest.raises(OSError, match=r"Input/output error|ended"):
        device.measure(1)


@pytest.mark.skipif(not os.access(HWRNG, os.R_OK), reason="no hardware generator to read")
def test_the_hardware_generator_of_this_machine(opened: Callable[..., Any]) -> None:
    first, second = (opened(HWRNG).measure(64) for _ in range(2))
    assert first != second
