# SPDX-License-Identifier: Apache-2.0
"""Devices behind a file name: real FIFOs, terminals, sockets and a character device."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qr_entropy_sources import device_kind
from qr_entropy_sources.byte_stream import ByteStream
from qr_entropy_sources.device_file import DeviceFileSource
from qr_entropy_sources.device_kind import DeviceKind, jit_class_of, kind_of
from qr_sampler import ConfigError, EntropyUnavailableError, JitClass, Settings
from qr_sampler.components.failure_policy import configured_source
from qr_sampler.testing import EntropySourceContract

termios = pytest.importorskip("termios", reason="device files are read on POSIX systems")

URANDOM = Path("/dev/urandom")
PATIENCE_MS = 60_000
"""Deadline of draws that are expected to succeed, however slow the machine."""


def counting(start: int, n: int) -> bytes:
    """Returns *n* bytes, each one more than the last, modulo 256."""
    return bytes((start + offset) & 0xFF for offset in range(n))


def is_consecutive(data: bytes) -> bool:
    return data == counting(data[0], len(data))


class Feeder:
    """Writes into a descriptor whatever *content* yields, for as long as there is room.

    Args:
        descriptor: Closed by :meth:`stop`.
        content: Returns n bytes that continue the stream from a given position.
    """

    def __init__(self, descriptor: int, content: Callable[[int, int], bytes] = counting) -> None:
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._content = content
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        position = 0
        while not self._stopped.is_set():
            _, writable, _ = select.select([], [self.descriptor], [], 0.01)
            if writable:
                try:
                    position += os.write(self.descriptor, self._content(position, 512))
                except BlockingIOError:
                    continue

    def pause(self) -> None:
        self._stopped.set()
        self._thread.join()

    def stop(self) -> None:
        if not self._stopped.is_set():
            self.pause()
            os.close(self.descriptor)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def fed_fifo(fifo: Path) -> Iterator[Path]:
    feeder = Feeder(os.open(fifo, os.O_RDWR))
    yield fifo
    feeder.stop()


@pytest.fixture
def silent_fifo(fifo: Path) -> Iterator[int]:
    """A descriptor that keeps the FIFO open and writes only what the test says."""
    descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def build() -> Iterator[Callable[..., DeviceFileSource]]:
    """Returns a constructor of patient sources, all of them closed at the end."""
    built: list[DeviceFileSource] = []

    def construct(path: Path, **options: int) -> DeviceFileSource:
        source = DeviceFileSource(path, **{"timeout_ms": PATIENCE_MS, **options})
        built.append(source)
        return source

    yield construct
    for source in built:
        source.close()


class SocketServer:
    """A Unix stream socket that sends each client one prepared message, and then hangs up."""

    def __init__(self, path: Path, message: bytes) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._message = message
        self.clients = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.clients += 1
            with connection:
                connection.sendall(self._message)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    servers: list[SocketServer] = []

    def start(message: bytes) -> Path:
        path = tmp_path / f"socket{len(servers)}"
        servers.append(SocketServer(path, message))
        return path

    yield start
    for server in servers:
        server.stop()


class TestCharacterDevice(EntropySourceContract):
    """The contract on /dev/urandom, with a log and a fault at the level of system calls."""

    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        sizes: list[int] = []
        read = os.read

        def logged(descriptor: int, n: int) -> bytes:
            data = read(descriptor, n)
            sizes.append(len(data))
            return data

        monkeypatch.setattr(os, "read", logged)
        return sizes

    @pytest.fixture
    def source(self, reads: list[int], build: Callable[..., DeviceFileSource]) -> DeviceFileSource:
        return build(URANDOM, flush_bytes=16)

    @pytest.fixture
    def generation_log(self, reads: list[int]) -> Callable[[], int]:
        return lambda: sum(reads)

    @pytest.fixture
    def fault(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        def unplugged(descriptor: int, n: int) -> bytes:
            raise OSError(errno.ENODEV, "No such device")

        return lambda: monkeypatch.setattr(os, "read", unplugged)


class TestFifo(EntropySourceContract):
    """The contract on a FIFO with a busy writer."""

    @pytest.fixture
    def feeder(self, fifo: Path) -> Iterator[Feeder]:
        feeder = Feeder(os.open(fifo, os.O_RDWR), lambda position, n: os.urandom(n))
        yield feeder
        feeder.stop()

    @pytest.fixture
    def source(
        self, feeder: Feeder, fifo: Path, build: Callable[..., DeviceFileSource]
    ) -> DeviceFileSource:
        return build(fifo, flush_bytes=0)

    @pytest.fixture
    def fault(self, feeder: Feeder, fifo: Path) -> Callable[[], None]:
        def writer_dies() -> None:
            feeder.pause()
            while select.select([feeder.descriptor], [], [], 0)[0]:
                os.read(feeder.descriptor, 65_536)
            os.close(feeder.descriptor)
            fifo.unlink()

        return writer_dies


def test_flush_discards_exactly_what_it_says(
    serve: Callable[[bytes], Path], build: Callable[..., DeviceFileSource]
) -> None:
    source = build(serve(counting(0, 200)), flush_bytes=10)
    assert source.get_random_bytes(5) == counting(10, 5)
    assert source.get_random_bytes(0) == b""


def test_no_flush_discards_nothing_that_is_new(
    serve: Callable[[bytes], Path], build: Callable[..., DeviceFileSource]
) -> None:
    assert build(serve(counting(0, 20)), flush_bytes=0).get_random_bytes(20) == counting(0, 20)


def test_a_server_that_answers_once_is_asked_anew(
    serve: Callable[[bytes], Path], build: Callable[..., DeviceFileSource]
) -> None:
    """What is left of an earlier answer is dropped, and no draw is lost to the hanging up."""
    source = build(serve(counting(0, 200)), flush_bytes=0)
    assert [source.get_random_bytes(50) for _ in range(3)] == [counting(0, 50)] * 3


def test_long_answers_arrive_in_pieces_and_in_order(
    fed_fifo: Path, build: Callable[..., DeviceFileSource]
) -> None:
    source = build(fed_fifo, flush_bytes=100)
    assert is_consecutive(source.get_random_bytes(200_001))
    assert is_consecutive(source.get_random_bytes(50))


def test_what_waited_in_a_fifo_before_it_was_opened_is_dropped(
    fifo: Path, silent_fifo: int, build: Callable[..., DeviceFileSource]
) -> None:
    os.write(silent_fifo, b"old" * 100)
    source = build(fifo, flush_bytes=0, timeout_ms=50)
    with pytest.raises(EntropyUnavailableError, match="0 of 1 bytes in time"):
        source.get_random_bytes(1)


def test_a_fifo_that_never_runs_dry_is_read_all_the_same(
    fifo: Path, silent_fifo: int, build: Callable[..., DeviceFileSource]
) -> None:
    """Its writer refills it while it is emptied: reading stops at a quarter of a mebibyte more."""
    source = build(fifo, flush_bytes=0)
    read, taken = os.read, [0]

    def read_and_refill(descriptor: int, n: int) -> bytes:
        piece = read(descriptor, n)
        taken[0] += len(piece)
        os.write(silent_fifo, bytes(len(piece)))
        return piece

    os.write(silent_fifo, bytes(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "read", read_and_refill)
        assert source.get_random_bytes(100) == bytes(100)
    assert taken[0] == 1000 + (1 << 18) + 100


def test_emptying_counts_against_the_deadline(
    fifo: Path, silent_fifo: int, build: Callable[..., DeviceFileSource]
) -> None:
    source = build(fifo, flush_bytes=0)
    os.write(silent_fifo, bytes(1000))
    stream = source._open_stream()
    with pytest.raises(TimeoutError, match="could not be read empty in time"):
        stream.drop_what_waited(time.monotonic_ns() - 1)


COOKED = {"as Linux opens it": lambda mode: None, "with every flag": lambda mode: every_flag(mode)}


def every_flag(mode: list[Any]) -> None:
    """Switches on what alters input and what the function of older Pythons leaves alone."""
    names = ("IGNBRK", "BRKINT", "PARMRK", "ISTRIP", "INLCR", "IGNCR", "ICRNL", "IXON", "IXOFF")
    for name in names:
        mode[0] |= getattr(termios, name)
    mode[2] = mode[2] & ~termios.CSIZE | termios.CS7 | termios.PARENB
    mode[3] |= termios.ICANON | termios.ISIG | termios.IEXTEN | termios.ECHO


@pytest.mark.parametrize("state", COOKED)
@pytest.mark.parametrize("when", ["before it is opened", "between two draws"])
def test_a_terminal_alters_no_byte(
    state: str, when: str, build: Callable[..., DeviceFileSource]
) -> None:
    """Otherwise eleven byte values never arrive: line ends, control characters, flow control."""
    master, slave = os.openpty()
    source = build(Path(os.ttyname(slave)), flush_bytes=256)
    feeder = Feeder(master)
    try:
        if when == "between two draws":
            source.get_random_bytes(1)
        mode = termios.tcgetattr(slave)
        mode[:4] = 0x500, 0x5, 0xBF, 0x8A3B  # What tty_std_termios of Linux 6 is.
        COOKED[state](mode)
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        data = source.get_random_bytes(2048)
        assert is_consecutive(data)
        assert set(data) == set(range(256))
    finally:
        feeder.stop()
        os.close(slave)


def test_the_speed_of_a_terminal_stays(build: Callable[..., DeviceFileSource]) -> None:
    master, slave = os.openpty()
    mode = termios.tcgetattr(slave)
    mode[4] = mode[5] = termios.B115200
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    build(Path(os.ttyname(slave)))._open_stream()
    assert termios.tcgetattr(slave)[4:6] == [termios.B115200, termios.B115200]
    os.close(master)
    os.close(slave)


def test_a_terminal_that_hangs_up_is_unavailable(build: Callable[..., DeviceFileSource]) -> None:
    master, slave = os.openpty()
    source = build(Path(os.ttyname(slave)), flush_bytes=0, timeout_ms=50)
    with pytest.raises(EntropyUnavailableError, match="in time"):
        source.get_random_bytes(1)
    source.timeout_ms = PATIENCE_MS
    source._open_stream()
    os.close(master)
    with pytest.raises(EntropyUnavailableError, match=r"Input/output error|ended"):
        source.get_random_bytes(1)
    os.close(slave)


def refused(descriptor: int, when: int, mode: list[Any]) -> None:
    raise termios.error(errno.EIO, "no raw mode")


def ignored(descriptor: int, when: int, mode: list[Any]) -> None:
    return


@pytest.mark.parametrize("answer", [refused, ignored])
def test_a_terminal_that_does_not_take_raw_mode_is_unavailable(
    answer: Callable[..., None],
    build: Callable[..., DeviceFileSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(termios, "tcsetattr", answer)
    master, slave = os.openpty()
    before = open_descriptors()
    with pytest.raises(EntropyUnavailableError, match=r"no raw mode|does not take raw mode"):
        build(Path(os.ttyname(slave))).get_random_bytes(1)
    assert open_descriptors() == before
    os.close(master)
    os.close(slave)


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_hanging_device_is_given_up_and_closed(
    fifo: Path, silent_fifo: int, build: Callable[..., DeviceFileSource]
) -> None:
    source = build(fifo, flush_bytes=0, timeout_ms=50)
    before = open_descriptors()
    with pytest.raises(EntropyUnavailableError, match="0 of 8 bytes in time") as caught:
        source.get_random_bytes(8)
    assert "QR_DEVICE_FILE_TIMEOUT_MS=50" in caught.value.reason
    assert open_descriptors() == before


def test_a_silent_device_is_left_alone(
    fifo: Path, silent_fifo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take its time limit for every token otherwise."""
    monkeypatch.setenv("QR_DEVICE_FILE_PATH", str(fifo))
    monkeypatch.setenv("QR_DEVICE_FILE_TIMEOUT_MS", "30")
    monkeypatch.setenv("QR_CB_RECOVERY_WINDOW_S", "3600")
    monkeypatch.setenv("QR_CB_RECOVERY_MAX_S", "3600")
    opened = []
    monkeypatch.setattr(
        "qr_entropy_sources.device_file.ByteStream",
        lambda path: opened.append(path) or ByteStream(path),
    )
    settings = Settings(entropy_source_type="device_file", fallback_mode="system")
    source = configured_source(settings)
    draws = [source.draw(8) for _ in range(50)]
    assert {draw.source for draw in draws} == {"system"}
    assert len(opened) == 3
    assert "0 of 128 bytes in time" in draws[2].fallback_reason
    assert "not tried again for" in draws[3].fallback_reason
    assert "not tried again for" in source.status().reason
    source.close()


def test_a_late_answer_serves_no_later_draw(
    fifo: Path, silent_fifo: int, build: Callable[..., DeviceFileSource]
) -> None:
    source = build(fifo, flush_bytes=0, timeout_ms=50)
    with pytest.raises(EntropyUnavailableError):
        source.get_random_bytes(8)
    os.write(silent_fifo, b"L" * 8)
    feeder = Feeder(os.dup(silent_fifo), lambda position, n: b"N" * n)
    source.timeout_ms = PATIENCE_MS
    answers = [source.get_random_bytes(8) for _ in range(3)]
    feeder.stop()
    assert answers == [b"N" * 8] * 3


def test_a_flush_that_hangs_counts_against_the_deadline(
    fifo: Path, silent_fifo: int, build: Callable[..., DeviceFileSource]
) -> None:
    with pytest.raises(EntropyUnavailableError, match="0 of 64 bytes in time"):
        build(fifo, flush_bytes=64, timeout_ms=50).get_random_bytes(8)


def test_an_ending_device_is_unavailable_and_reopened_next_time(
    serve: Callable[[bytes], Path], build: Callable[..., DeviceFileSource]
) -> None:
    source = build(serve(b"1234"), flush_bytes=0)
    with pytest.raises(EntropyUnavailableError, match="ended after 4 of 8 bytes"):
        source.get_random_bytes(8)
    assert source.get_random_bytes(4) == b"1234"


def test_a_fifo_whose_writer_leaves_is_unavailable(
    fifo: Path, build: Callable[..., DeviceFileSource]
) -> None:
    def come_and_go() -> None:
        with fifo.open("wb", buffering=0) as writer:
            writer.write(b"1234")

    visitor = threading.Thread(target=come_and_go)
    visitor.start()
    with pytest.raises(EntropyUnavailableError, match=r"ended after [0-4] of 8 bytes"):
        build(fifo, flush_bytes=0).get_random_bytes(8)
    visitor.join()


def test_an_empty_device_is_unavailable(build: Callable[..., DeviceFileSource]) -> None:
    with pytest.raises(EntropyUnavailableError, match="/dev/null ended"):
        build(Path("/dev/null")).get_random_bytes(1)


def test_a_device_without_poll_is_asked_again(
    build: Callable[..., DeviceFileSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hw_random core of Linux says EAGAIN although it looked readable."""
    read = os.read
    refusals = iter([True, True, False, True, False])

    def reluctant(descriptor: int, n: int) -> bytes:
        if next(refusals):
            raise BlockingIOError(errno.EAGAIN, "try again")
        return read(descriptor, n)

    monkeypatch.setattr(os, "read", reluctant)
    source = build(URANDOM, flush_bytes=8)
    assert len(source.get_random_bytes(8)) == 8
    assert next(refusals, None) is None


def test_a_device_that_is_never_ready_is_given_up(
    build: Callable[..., DeviceFileSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(descriptor: int, n: int) -> bytes:
        raise BlockingIOError(errno.EAGAIN, "try again")

    source = build(URANDOM, timeout_ms=20)
    monkeypatch.setattr(os, "read", never)
    with pytest.raises(EntropyUnavailableError, match="in time"):
        source.get_random_bytes(8)


@pytest.mark.skipif(not os.access("/dev/hwrng", os.R_OK), reason="no hardware generator to read")
def test_the_hardware_generator_of_this_machine(build: Callable[..., DeviceFileSource]) -> None:
    source = build(Path("/dev/hwrng"))
    assert source.get_random_bytes(64) != source.get_random_bytes(64)
    assert source.jit_class is JitClass.FLUSHED


def test_recordings_are_refused(tmp_path: Path, build: Callable[..., DeviceFileSource]) -> None:
    recording = tmp_path / "recording.bin"
    recording.write_bytes(os.urandom(4096))
    link = tmp_path / "hwrng"
    link.symlink_to(recording)
    for path in (recording, link, tmp_path):
        source = build(path)
        assert not source.is_available
        with pytest.raises(EntropyUnavailableError, match="a recording is not a measurement"):
            source.get_random_bytes(1)
        assert "QR_DEVICE_FILE_PATH" in source.status().reason


def test_a_missing_device_says_what_to_do(
    tmp_path: Path, build: Callable[..., DeviceFileSource]
) -> None:
    source = build(tmp_path / "absent")
    assert "absent does not exist; plug the device in" in source.status().reason
    with pytest.raises(EntropyUnavailableError, match="set QR_DEVICE_FILE_PATH"):
        source.get_random_bytes(1)


def test_a_forbidden_device_says_what_to_do(
    build: Callable[..., DeviceFileSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: object, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    source = build(URANDOM)
    assert source.status().available
    monkeypatch.setattr(os, "open", forbidden)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no permission to read /dev/urandom" in source.status().reason
    with pytest.raises(EntropyUnavailableError, match="udev"):
        source.get_random_bytes(1)


def test_a_socket_without_a_server_is_unavailable(
    tmp_path: Path, build: Callable[..., DeviceFileSource]
) -> None:
    path = tmp_path / "abandoned"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(EntropyUnavailableError, match="Connection refused"):
        build(path).get_random_bytes(1)


def test_nothing_is_opened_before_the_first_draw(
    tmp_path: Path, build: Callable[..., DeviceFileSource]
) -> None:
    before = open_descriptors()
    source = build(URANDOM)
    source.status()
    assert source.get_random_bytes(0) == b""
    assert open_descriptors() == before
    source.get_random_bytes(1)
    assert open_descriptors() == before + 1
    source.close()
    assert open_descriptors() == before
    assert len(source.get_random_bytes(3)) == 3


@pytest.mark.slow
def test_threads_get_whole_answers(fed_fifo: Path, build: Callable[..., DeviceFileSource]) -> None:
    sources = [build(fed_fifo, flush_bytes=0) for _ in range(2)]
    for source in sources:
        source.get_random_bytes(1)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(sources[turn % 2].get_random_bytes, 6000) for turn in range(40)]
        answers = [job.result() for job in jobs]
    # An answer longer than one read is consecutive only if no other draw came between its reads.
    assert all(map(is_consecutive, answers))


def test_sources_of_one_device_share_its_lock(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(URANDOM)
    by_name, by_link = DeviceFileSource(URANDOM), DeviceFileSource(link)
    assert by_name._lock() is by_link._lock()
    assert by_name._lock() is not DeviceFileSource(Path("/dev/zero"))._lock()


def test_waiting_for_another_draw_counts_against_the_deadline(
    build: Callable[..., DeviceFileSource],
) -> None:
    source = build(URANDOM, timeout_ms=20)
    with (
        source._lock(),
        pytest.raises(EntropyUnavailableError, match="busy with other draws"),
    ):
        source.get_random_bytes(1)
    source.timeout_ms = PATIENCE_MS
    assert len(source.get_random_bytes(1)) == 1


# Python 3.12 and later warn of any fork while native threads run, such as those of OpenBLAS.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_the_device_for_itself(
    build: Callable[..., DeviceFileSource],
) -> None:
    source = build(URANDOM)
    source.get_random_bytes(1)
    parents = source._streams.peek()._descriptor
    reader, writer = os.pipe()
    # Held as by another thread in the middle of a draw; the child must not wait for it.
    with source._lock():
        child = os.fork()
        if child == 0:
            data = source.get_random_bytes(16)
            own = source._streams.peek()._descriptor
            source.close()
            os.fstat(parents)
            os.write(writer, struct.pack("i16s", own, data))
            os._exit(0)
    os.close(writer)
    own, data = struct.unpack("i16s", os.read(reader, 20))
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert own != parents
    assert data != source.get_random_bytes(16)
    assert source._streams.peek()._descriptor == parents


def test_draw_names_the_device(build: Callable[..., DeviceFileSource]) -> None:
    assert build(URANDOM).draw(1).device_id == "/dev/urandom"


@pytest.mark.parametrize(
    ("path", "flush_bytes", "claim"),
    [
        ("/dev/urandom", 128, JitClass.PSEUDO),
        ("/dev/random", 0, JitClass.PSEUDO),
        ("/dev/zero", 1024, JitClass.UNKNOWN),
        ("/dev/absent", 1024, JitClass.UNKNOWN),
    ],
)
def test_what_a_character_device_may_claim(path: str, flush_bytes: int, claim: JitClass) -> None:
    assert DeviceFileSource(Path(path), flush_bytes=flush_bytes).jit_class is claim


def test_what_the_hardware_generator_may_claim() -> None:
    for flush_bytes, claim in ((127, JitClass.UNKNOWN), (128, JitClass.FLUSHED)):
        assert jit_class_of(DeviceKind.HARDWARE_GENERATOR, flush_bytes) is claim
    if Path("/dev/hwrng").exists():
        assert kind_of(Path("/dev/hwrng")) is DeviceKind.HARDWARE_GENERATOR


def test_what_can_be_emptied_may_claim_it(
    fifo: Path, serve: Callable[[bytes], Path], build: Callable[..., DeviceFileSource]
) -> None:
    master, slave = os.openpty()
    for path in (fifo, serve(b""), Path(os.ttyname(slave))):
        assert build(path, flush_bytes=0).jit_class is JitClass.FLUSHED
    os.close(master)
    os.close(slave)


DRIVERS = """\
/dev/tty             /dev/tty        5       0 system:/dev/tty
usbserial            /dev/ttyUSB   188 0-511 serial
serial               /dev/ttyS       4 64-95 serial

"""


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers are those of Linux")
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ((188, 0), DeviceKind.TERMINAL),
        ((188, 511), DeviceKind.TERMINAL),
        ((188, 512), DeviceKind.OTHER),
        ((4, 63), DeviceKind.OTHER),
        ((4, 64), DeviceKind.TERMINAL),
        ((5, 0), DeviceKind.TERMINAL),
        ((1, 9), DeviceKind.KERNEL_GENERATOR),
        ((10, 183), DeviceKind.HARDWARE_GENERATOR),
        ((10, 184), DeviceKind.OTHER),
    ],
)
def test_a_device_is_known_by_its_number(
    number: tuple[int, int], kind: DeviceKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "drivers"
    table.write_text(DRIVERS, "ascii")
    monkeypatch.setattr(device_kind, "_TERMINAL_DRIVERS", table)
    assert device_kind._character_device(os.makedev(*number)) is kind


def test_a_terminal_is_known_at_the_latest_when_it_is_open(
    build: Callable[..., DeviceFileSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_kind, "_TERMINAL_DRIVERS", Path("/proc/absent"))
    master, slave = os.openpty()
    source = build(Path(os.ttyname(slave)))
    assert source.jit_class is JitClass.UNKNOWN
    source._open_stream()
    assert source.jit_class is JitClass.FLUSHED
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("options", [{"flush_bytes": -1}, {"timeout_ms": 0}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        DeviceFileSource(URANDOM, **options)


def test_default_is_the_hardware_generator_of_linux() -> None:
    source = DeviceFileSource.from_environment()
    assert (source.path, source.flush_bytes, source.timeout_ms) == (Path("/dev/hwrng"), 128, 5000)


def test_settings_come_from_the_environment_and_a_dotenv_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "QR_DEVICE_FILE_PATH=/dev/chaoskey0\nQR_DEVICE_FILE_TIMEOUT_MS=250\n"
    )
    monkeypatch.setenv("QR_DEVICE_FILE_FLUSH_BYTES", "0")
    monkeypatch.setenv("QR_DEVICE_FILE_PATH", "/dev/urandom")
    source = DeviceFileSource.from_environment()
    assert (source.path, source.flush_bytes, source.timeout_ms) == (URANDOM, 0, 250)
    assert source.recorded_settings == {
        "path": "/dev/urandom",
        "flush_bytes": 0,
        "timeout_ms": 250,
    }


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QR_DEVICE_FILE_FLUSH_BYTES", "-1"),
        ("QR_DEVICE_FILE_FLUSH_BYTES", "2.5"),
        ("QR_DEVICE_FILE_FLUSH_BYTES", "1048577"),
        ("QR_DEVICE_FILE_TIMEOUT_MS", "0"),
        ("QR_DEVICE_FILE_TIMEOUT_MS", "soon"),
        ("QR_DEVICE_FILE_TIMEOUT_MS", "600001"),
    ],
)
def test_malformed_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable) as caught:
        DeviceFileSource.from_environment()
    assert value in str(caught.value)
