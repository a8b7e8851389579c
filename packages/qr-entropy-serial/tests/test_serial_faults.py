# SPDX-License-Identifier: Apache-2.0
"""Whatever a device does, the source says so in time, and goes on when the device does."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import serial

from qr_entropy_serial.connection import Connection
from qr_entropy_serial.devices import DEVICES
from qr_entropy_serial.port import SerialPort
from qr_entropy_serial.reasons import Reasons
from qr_entropy_serial.simulators import Plug, SimulatedDevice, SimulatedOneRng, SimulatedTrueRng
from qr_entropy_serial.source import SerialSource
from qr_sampler import ConfigError, EntropyUnavailableError
from qr_sampler.health import HealthMonitor, HealthState

IMPATIENT_MS = 400
KINDS: dict[str, Callable[[], SimulatedDevice]] = {
    "truerng": SimulatedTrueRng,
    "onerng": SimulatedOneRng,
}

Build = Callable[..., SerialSource]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plug(kind: str, plug_in: Callable[[SimulatedDevice], Plug]) -> Plug:
    return plug_in(KINDS[kind]())


def reason_of(source: SerialSource, n: int = 64) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(n)
    return caught.value.reason


def test_silence_ends_a_draw_in_time_and_sound_is_heard_again(
    kind: str, plug: Plug, build: Build
) -> None:
    source = build(plug.link, kind)
    source.draw(64)
    plug.device.break_down("silence")
    source.timeout_ms = IMPATIENT_MS
    assert "QR_SERIAL_TIMEOUT_MS=400" in reason_of(source)
    plug.device.break_down("")
    source.timeout_ms = 60_000
    assert len(source.draw(64).data) == 64


def test_half_an_answer_is_dropped_and_told(kind: str, plug: Plug, build: Build) -> None:
    # How much is flushed depends on the moment; without it all that comes is of the answer.
    source = build(plug.link, kind, timeout_ms=IMPATIENT_MS, flush_bytes=0)
    plug.device.break_down("short")
    with pytest.raises(EntropyUnavailableError, match="of 1024 bytes in time") as caught:
        source.draw(1_024)
    assert 0 < caught.value.dropped_bytes < 1_024


def test_garbage_is_left_to_the_health_tests_and_they_see_it(
    kind: str, plug: Plug, build: Build
) -> None:
    source = build(plug.link, kind)
    monitor = HealthMonitor()
    assert monitor.observe(source.draw(1_024).data) is None
    plug.device.break_down("garbage")
    monitor.observe(source.draw(1_024).data)
    assert monitor.state is HealthState.FAILED


def test_a_device_that_is_back_serves_the_next_draw(kind: str, plug: Plug, build: Build) -> None:
    source = build(plug.link, kind)
    source.draw(64)
    plug.unplug()
    assert "does not exist" in reason_of(source)
    assert not source.status().available
    plug.plug_in()
    assert source.status().available
    assert len(source.draw(64).data) == 64


def test_a_device_that_was_away_between_two_draws_costs_none(
    kind: str, plug: Plug, build: Build
) -> None:
    source = build(plug.link, kind)
    source.draw(64)
    plug.unplug()
    plug.plug_in()
    assert len(source.draw(64).data) == 64


def test_a_device_unplugged_within_a_draw_ends_it_at_once(
    kind: str, plug: Plug, build: Build
) -> None:
    source = build(plug.link, kind)
    source.draw(64)
    puller = threading.Timer(0.1, plug.unplug)
    puller.start()
    # At the pace of the simulator it would take minutes.
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(100_000_000)
    puller.join()
    assert caught.value.dropped_bytes > 0


def test_a_draw_that_a_signal_interrupts_gives_the_port_back(
    kind: str, plug: Plug, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, other = build(plug.link, kind), build(plug.link, kind)

    def interrupted(port: SerialPort, received: bytearray, n: int, deadline_ns: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SerialPort, "read_into", interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.draw(8)
    assert len(other.draw(8).data) == 8


class TestModes:
    def test_a_device_that_somebody_left_in_text_mode_is_told_its_mode(
        self, plug_in: Callable[[SimulatedDevice], Plug], build: Build
    ) -> None:
        device = SimulatedTrueRng(pro=True)
        device.leave_in_text_mode()
        source = build(plug_in(device).link, "truerng_pro_v2", mode="unwhitened")
        assert source.conditioning == "difference"
        assert not source.draw(256).data.isascii()
        assert device.mode == "unwhitened"

    def test_a_device_that_is_not_told_is_caught_by_its_text(
        self, plug_in: Callable[[SimulatedDevice], Plug], build: Build
    ) -> None:
        device = SimulatedTrueRng(pro=True)
        device.leave_in_text_mode()
        device.break_down("wrong_mode")
        source = build(plug_in(device).link, "truerng_pro")
        assert "sends text" in reason_of(source)
        assert device.mode != "normal"

    def test_the_usual_mode_says_that_a_generator_is_mixed_in(self, build: Build) -> None:
        assert build(Path("/dev/null"), "truerng_pro").conditioning == "mersenne-twister"
        assert build(Path("/dev/null"), "truerng_pro", mode="raw_binary").conditioning == "none"

    @pytest.mark.parametrize(("mode", "digit"), [("avalanche", 0), ("rf_raw", 7)])
    def test_a_onerng_has_the_sources_of_its_mode_while_it_sends(
        self,
        mode: str,
        digit: int,
        plug_in: Callable[[SimulatedDevice], Plug],
        build: Build,
    ) -> None:
        device = SimulatedOneRng()
        obeyed: list[bytes] = []
        plug = plug_in(device)
        commanded = device.commanded

        def noted(data: bytes) -> None:
            obeyed.append(data)
            commanded(data)

        device.commanded = noted  # type: ignore[method-assign]
        build(plug.link, "onerng", mode=mode).draw(64)
        assert b"cmd%d\n" % digit in b"".join(obeyed)

    @pytest.mark.parametrize("device", [one.name for one in DEVICES])
    def test_unknown_modes_are_refused_by_name(self, device: str, build: Build) -> None:
        with pytest.raises(ConfigError, match=f"QR_SERIAL_MODE='loud'.*{device}"):
            build(Path("/dev/null"), device, mode="loud")


class TestExclusiveUse:
    def test_nobody_else_opens_the_port_until_it_is_given_back(
        self, kind: str, plug: Plug, build: Build
    ) -> None:
        source, other = build(plug.link, kind), build(plug.link, kind)
        source.draw(8)
        assert "in use by another program" in reason_of(other)
        with pytest.raises(serial.SerialException):
            serial.Serial(str(plug.link), exclusive=True)
        source.close()
        assert len(other.draw(8).data) == 8

    def test_threads_queue_up(self, kind: str, plug: Plug, build: Build) -> None:
        source = build(plug.link, kind)
        with ThreadPoolExecutor(4) as pool:
            draws = list(pool.map(source.draw, [256] * 12))
        assert len({draw.data for draw in draws}) == 12

    def test_a_thread_that_waits_too_long_is_told(
        self, kind: str, plug: Plug, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = build(plug.link, kind)
        reads, goes_on = threading.Event(), threading.Event()
        read_into = Connection.read_into

        def slow(connection: Connection, received: bytearray, n: int, deadline_ns: int) -> None:
            reads.set()
            goes_on.wait(60.0)
            read_into(connection, received, n, deadline_ns)

        monkeypatch.setattr(Connection, "read_into", slow)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(source.draw, 64)
            reads.wait(60.0)
            source.timeout_ms = 10
            assert "busy with other draws" in reason_of(source)
            goes_on.set()
            assert len(first.result().data) == 64

    def test_a_forked_child_waits_until_its_parent_gives_the_port_back(
        self, simulator_program: Callable[[str], Path]
    ) -> None:
        script = """
            import os, sys
            from qr_entropy_serial.source import SerialSource
            from qr_sampler import EntropyUnavailableError

            source = SerialSource(sys.argv[1], "onerng", timeout_ms=60_000)
            assert len(source.draw(64).data) == 64
            told, tells = os.pipe()
            heard, says = os.pipe()
            child = os.fork()
            if not child:
                try:
                    source.draw(64)
                    os._exit(1)
                except EntropyUnavailableError as error:
                    in_use = "in use" in error.reason
                os.write(says, b"x")
                os.read(told, 1)
                os._exit(0 if in_use and len(source.draw(64).data) == 64 else 2)
            os.close(says)
            os.read(heard, 1)
            assert len(source.draw(64).data) == 64
            source.close()
            os.write(tells, b"x")
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
        link = simulator_program("onerng")
        command = [sys.executable, "-c", textwrap.dedent(script), str(link)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


class TestReasons:
    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (errno.ENOENT, "does not exist; plug the device in or set QR_X_PORT"),
            (errno.EIO, "is gone (Input/output error); plug the device in again"),
            (errno.EACCES, "no permission to use"),
            (errno.EBUSY, "in use by another program"),
        ],
    )
    def test_each_error_has_its_remedy_also_without_a_named_port(
        self, code: int, words: str
    ) -> None:
        for port in ("/dev/ttyACM0", ""):
            said = Reasons("QR_X_", port).of(OSError(code, os.strerror(code)), 1)
            assert words in said
            assert (port or "its port") in said


class TestPort:
    def test_what_is_no_terminal_is_refused(self) -> None:
        with pytest.raises(OSError, match="Could not configure port"):
            SerialPort("/dev/null", 9600)

    def test_every_byte_value_passes(self, plug_in: Callable[[SimulatedDevice], Plug]) -> None:
        device: Any = SimulatedTrueRng(rate=0.0)
        port = SerialPort(str(plug_in(device).link), 9600)
        device.feed(bytes(range(256)))
        assert port.read(256, time.monotonic_ns() + 10**10) == bytes(range(256))
        port.close()
        port.close()

    @pytest.mark.parametrize(("waits", "dropped"), [(b"\0\0\0\0", 0), (b"\1\0\0\0", 1)])
    def test_commands_that_a_hung_device_does_not_take_are_given_up(
        self,
        waits: bytes,
        dropped: int,
        plug_in: Callable[[SimulatedDevice], Plug],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Linux closes a serial port when they have left, or after 30 seconds."""
        port = SerialPort(str(plug_in(SimulatedTrueRng()).link), 9600)
        ask, flush, flushed = fcntl.ioctl, termios.tcflush, []

        def answer(descriptor: int, code: int, *rest: Any) -> Any:
            return waits if code == termios.TIOCOUTQ else ask(descriptor, code, *rest)

        def note(descriptor: int, queue: int) -> None:
            flushed.append(queue)
            flush(descriptor, queue)

        monkeypatch.setattr(fcntl, "ioctl", answer)
        monkeypatch.setattr(termios, "tcflush", note)
        port.close()
        assert flushed == [termios.TCOFLUSH] * dropped

    def test_systems_without_terminals_are_told(self) -> None:
        script = (
            "import sys\n"
            "from qr_entropy_serial.source import SerialSource\n"
            "from qr_sampler.errors import ConfigError\n"
            "sys.platform = 'win32'\n"
            "try: SerialSource()\n"
            "except ConfigError as error: assert 'POSIX systems only' in str(error), error\n"
            "else: sys.exit(1)"
        )
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

    def test_a_path_that_is_missing_says_so(self, build: Build) -> None:
        assert "plug the device in" in reason_of(build(Path("/dev/ttyNONE"), "stream"))
