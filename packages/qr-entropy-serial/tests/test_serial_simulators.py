# SPDX-License-Identifier: Apache-2.0
"""The simulators as programs, and what they say that they leave out."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qr_entropy_serial.simulators import Plug, SimulatedOneRng, SimulatedTrueRng
from qr_entropy_serial.simulators.__main__ import main
from qr_entropy_serial.source import SerialSource
from qr_sampler import EntropyUnavailableError


def test_a_program_obeys_until_it_is_ended(tmp_path: Path) -> None:
    link = tmp_path / "tty"
    program = subprocess.Popen(
        [sys.executable, "-m", "qr_entropy_serial.simulators", "onerng", "--link", str(link)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    told, says = program.stdin, program.stdout
    assert says.readline() == f"{link} is ready\n"
    source = SerialSource(str(link), "onerng", timeout_ms=60_000)

    def tell(word: str) -> str:
        told.write(f"{word}\n")
        told.flush()
        return says.readline().strip()

    assert len(source.draw(64).data) == 64
    assert int(tell("generated")) >= 64
    assert tell("unplug") == "unplug: done"
    with pytest.raises(EntropyUnavailableError):
        source.draw(64)
    assert tell("replug") == "replug: done"
    assert len(source.draw(64).data) == 64
    assert tell("garbage") == "garbage: done"
    assert set(source.draw(64).data) == {0xAA}
    assert tell("heal") == "heal: done"
    assert tell("dance") == "dance: done"
    source.close()
    program.terminate()
    _, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (0, "'dance' is no command\n")
    assert not link.is_symlink()


def test_unknown_devices_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["toaster", "--link", "/tmp/x"])
    assert "invalid choice: 'toaster'" in capsys.readouterr().err


def test_unknown_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="'hunger' is none of silence, garbage"):
        SimulatedTrueRng().break_down("hunger")


def test_a_device_may_be_unplugged_twice(tmp_path: Path) -> None:
    with Plug(SimulatedTrueRng(), tmp_path / "tty") as plug:
        plug.unplug()
        plug.unplug()


def test_a_device_that_is_plugged_in_twice_is_plugged_in_once(tmp_path: Path) -> None:
    before = threading.active_count()
    with Plug(SimulatedTrueRng(), tmp_path / "tty") as plug:
        plug.plug_in()
        assert threading.active_count() == before + 1


def test_a_file_is_not_replaced_by_a_port(tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    path.write_text("years of work")
    with pytest.raises(FileExistsError, match="name another path"):
        Plug(SimulatedTrueRng(), path)
    assert path.read_text() == "years of work"


def test_a_onerng_reads_commands_as_its_firmware_does() -> None:
    device = SimulatedOneRng(rate=1e6)
    device.power_up()
    device.pass_time(0.001)
    assert device.offered() == b""
    # What is no command is passed over, in any pieces.
    for piece in (b"xxcm", b"d", b"Ocmx", b"md1\n"):
        device.commanded(piece)
    assert (device.paused, device.sources) == (False, 0)
    assert len(device.offered()) == 960
    device.commanded(b"cmd7cmdwcmdo")
    assert (device.paused, device.sources, device.waiting()) == (True, 7, b"")
    device.commanded(b"cmd4")
    device.pass_time(1.0)
    assert device.waiting() == b""


def test_words_of_the_raw_mode_hold_twelve_bits() -> None:
    device = SimulatedTrueRng(pro=True, rate=0.0)
    for baud in (9_600, 110, 300, 110, 19_200):
        device.opened_at(baud)
    device.feed(b"\xff" * 4)
    assert (device.mode, device.offered()) == ("raw_binary", b"\xff\x0f\xff\x0f")


@pytest.mark.parametrize("speeds", [(110, 300, 110, 1_200), (110, 110, 300, 4_800), (4_800,)])
def test_other_knocks_change_nothing(speeds: tuple[int, ...]) -> None:
    device = SimulatedTrueRng(pro=True)
    for baud in speeds:
        device.opened_at(baud)
    assert device.mode == "normal"
