# SPDX-License-Identifier: Apache-2.0
"""Which port is taken, by its path, by its USB identity, and by what is plugged in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qr_entropy_serial.connection import Location, UnknownDeviceError
from qr_entropy_serial.discovery import (
    PortNotFoundError,
    UsbIdentity,
    UsbPort,
    find_port,
    port_at,
    usb_ports,
)
from qr_entropy_serial.settings import DeviceName, SerialSettings
from qr_entropy_serial.source import SerialSource
from qr_sampler import ConfigError, EntropyUnavailableError, JitClass, create_source

TRUERNG = UsbPort("/dev/ttyACM0", 0x04D8, 0xF5FE, "7")
PRO_V2 = UsbPort("/dev/ttyACM1", 0x04D8, 0xEBB5, None)
ONERNG = UsbPort("/dev/ttyACM2", 0x1D50, 0x6086, "00")
CONVERTER = UsbPort("/dev/ttyUSB0", 0x0403, 0x6001, "A9")


def test_the_one_known_device_is_found() -> None:
    place = Location("", "auto", ports=lambda: [CONVERTER, ONERNG]).find()
    assert (place.path, place.device.name) == ("/dev/ttyACM2", "onerng")
    assert place.identity == "1d50:6086:00"


@pytest.mark.parametrize(
    ("port", "device", "path", "name"),
    [
        ("04D8:F5FE", "auto", "/dev/ttyACM0", "truerng"),
        ("04d8:f5fe:7", "auto", "/dev/ttyACM0", "truerng"),
        ("0403:6001", "stream", "/dev/ttyUSB0", "stream"),
        ("/dev/ttyACM1", "auto", "/dev/ttyACM1", "truerng_pro_v2"),
        ("/dev/ttyACM1", "stream", "/dev/ttyACM1", "stream"),
        ("", "onerng", "/dev/ttyACM2", "onerng"),
    ],
)
def test_devices_are_found_by_what_is_said_of_them(
    port: str, device: str, path: str, name: str
) -> None:
    present = [TRUERNG, PRO_V2, ONERNG, CONVERTER]
    place = Location(port, device, ports=lambda: present).find()
    assert (place.path, place.device.name) == (path, name)


def test_several_devices_have_to_be_told_apart() -> None:
    with pytest.raises(PortNotFoundError, match=r"several.*ttyACM0.*ttyACM2.*serial number"):
        Location("", "auto", ports=lambda: [TRUERNG, ONERNG]).find()


def test_what_is_there_instead_is_told() -> None:
    with pytest.raises(PortNotFoundError, match=r"no USB serial port of 04d8:f5fe:8.*04d8:f5fe:7"):
        find_port([UsbIdentity(0x04D8, 0xF5FE, "8")], lambda: [TRUERNG])
    with pytest.raises(PortNotFoundError, match="found none at all"):
        find_port([UsbIdentity(0x04D8, 0xF5FE)], list)


def test_a_port_of_unknown_identity_needs_a_word() -> None:
    with pytest.raises(UnknownDeviceError, match="QR_SERIAL_DEVICE"):
        Location("/dev/ttyUSB0", "auto", ports=lambda: [CONVERTER]).find()
    with pytest.raises(UnknownDeviceError, match="QR_SERIAL_PORT"):
        Location("", "stream", ports=lambda: [CONVERTER]).find()


def test_a_link_leads_to_the_device_behind_it(tmp_path: Path) -> None:
    (tmp_path / "qrng").symlink_to("/dev/ttyACM0")
    assert port_at(str(tmp_path / "qrng"), lambda: [CONVERTER, TRUERNG]) == TRUERNG


def test_this_machine_can_be_asked() -> None:
    assert all(isinstance(port, UsbPort) for port in usb_ports())


def test_a_source_claims_what_is_plugged_in_and_no_more() -> None:
    found = SerialSource(ports=lambda: [TRUERNG])
    assert (found.jit_class, found.conditioning) == (JitClass.FLUSHED, "whitened")
    absent = SerialSource(ports=list)
    assert (absent.jit_class, absent.conditioning) == (JitClass.UNKNOWN, "unknown")
    assert not absent.status().available


def test_a_device_that_is_found_without_the_mode_is_unavailable() -> None:
    source = SerialSource(mode="unwhitened", ports=lambda: [ONERNG])
    with pytest.raises(EntropyUnavailableError, match="QR_SERIAL_MODE='unwhitened'"):
        source.draw(8)


@pytest.mark.parametrize("options", [{"flush_bytes": -1}, {"timeout_ms": 0}])
def test_numbers_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SerialSource("/dev/ttyACM0", "stream", **options)  # type: ignore[arg-type]


class TestEnvironment:
    def test_every_setting_arrives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = {
            "PORT": "/dev/qrng",
            "DEVICE": "truerng_pro_v2",
            "MODE": "unwhitened",
            "BAUD": "115200",
            "FLUSH_BYTES": "1024",
            "TIMEOUT_MS": "900",
        }
        for name, value in values.items():
            monkeypatch.setenv(f"QR_SERIAL_{name}", value)
        source = create_source("serial")
        assert source.recorded_settings == {
            "port": "/dev/qrng",
            "device": "truerng_pro_v2",
            "mode": "unwhitened",
            "baud": 115_200,
            "flush_bytes": 1_024,
            "timeout_ms": 900,
        }

    @pytest.mark.parametrize(
        ("name", "value"), [("DEVICE", "toaster"), ("FLUSH_BYTES", "-1"), ("MODE", "loud")]
    )
    def test_bad_values_are_refused_by_name(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QR_SERIAL_DEVICE", "onerng")
        monkeypatch.setenv(f"QR_SERIAL_{name}", value)
        with pytest.raises(ConfigError, match=f"QR_SERIAL_{name}"):
            create_source("serial")

    def test_the_location_of_an_instance_is_the_port(self) -> None:
        assert SerialSettings.location == "port"
        assert "port" in SerialSettings.model_fields


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_port_without_permission_says_so(tmp_path: Path) -> None:
    path = tmp_path / "tty"
    path.touch(mode=0)
    assert "udev" in SerialSource(str(path), "stream").status().reason


@pytest.mark.parametrize(
    "error", [TypeError("int() argument"), UnicodeDecodeError("ascii", b"\xff", 0, 1, "no")]
)
def test_a_device_that_vanishes_while_it_is_looked_for_is_unavailable(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyserial reads numbers from files of the system that may be gone by then."""

    def vanished() -> list[object]:
        raise error

    monkeypatch.setattr("serial.tools.list_ports.comports", vanished)
    source = SerialSource()
    assert source.jit_class is JitClass.UNKNOWN
    assert "cannot be listed" in source.status().reason
    with pytest.raises(EntropyUnavailableError, match="cannot be listed"):
        source.draw(8)


def test_what_a_device_calls_itself_is_shown_in_one_line_of_bounded_length() -> None:
    name = str(UsbIdentity(0x04D8, 0xF5FE, "\x1b[2J\n" + "7" * 10_000))
    assert name.isprintable()
    assert len(name) <= 512


def test_another_family_than_that_of_the_claims_is_refused() -> None:
    present = [TRUERNG]
    source = SerialSource(ports=lambda: present)
    present[:] = [ONERNG]
    assert "another device was" in source_reason(source)
    assert (source.jit_class, source.conditioning) == (JitClass.FLUSHED, "whitened")


@pytest.mark.parametrize(
    ("family", "held"), [("stream", 4_096), ("truerng", 512), ("truerng_pro", 512), ("onerng", 128)]
)
def test_less_than_a_device_may_hold_is_no_claim(family: DeviceName, held: int) -> None:
    """4,096: the receive buffer of an FT2232H (its data sheet)."""
    claims = [
        SerialSource("/dev/ttyUSB0", family, flush_bytes=count).jit_class
        for count in (None, held, held - 1)
    ]
    assert claims == [JitClass.FLUSHED, JitClass.FLUSHED, JitClass.UNKNOWN]


def source_reason(source: SerialSource) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(8)
    return caught.value.reason
