# SPDX-License-Identifier: Apache-2.0
"""Whatever the device does, the source says so in time, and goes on when the device does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from qcicada import PostProcess

from qr_entropy_cryptalabs.device import Answer, Device
from qr_entropy_cryptalabs.settings import CryptaLabsSettings
from qr_entropy_cryptalabs.simulators import SimulatedQCicada
from qr_entropy_cryptalabs.source import CryptaLabsSource
from qr_entropy_serial.discovery import UsbPort
from qr_entropy_serial.simulators import Plug
from qr_sampler import ConfigError, EntropyUnavailableError, create_source

Build = Callable[..., CryptaLabsSource]
IMPATIENT_MS = 400


def reason_of(source: CryptaLabsSource, n: int = 64) -> str:
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(n)
    return caught.value.reason


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("silence", "QR_CRYPTALABS_TIMEOUT_MS=400"),
        ("garbage", "answers 0xaa"),
        ("short", "in time"),
        ("alarm", "repetition count test has failed"),
        ("refusal", "refuses the command 0x51"),
        ("replay", "same bytes before"),
    ],
)
def test_a_fault_ends_the_draw_and_only_that(
    fault: str, words: str, device: SimulatedQCicada, build: Build
) -> None:
    source = build()
    source.draw(1_024)
    device.break_down(fault)
    source.timeout_ms = IMPATIENT_MS
    assert words in reason_of(source, 1_024)
    device.break_down("")
    source.timeout_ms = 60_000
    assert len(source.draw(64).data) == 64


def test_a_device_that_is_back_serves_the_next_draw(plug: Plug, build: Build) -> None:
    source = build()
    source.draw(64)
    plug.unplug()
    assert "does not exist" in reason_of(source)
    assert not source.status().available
    plug.plug_in()
    assert source.status().available
    assert len(source.draw(64).data) == 64


def test_a_device_that_was_away_between_two_draws_costs_none(plug: Plug, build: Build) -> None:
    source = build()
    source.draw(64)
    plug.unplug()
    plug.plug_in()
    assert len(source.draw(64).data) == 64


def test_a_device_unplugged_within_a_draw_ends_it_at_once(
    device: SimulatedQCicada, plug: Plug, build: Build
) -> None:
    source = build()
    source.draw(64)
    device.rate = 1_000.0
    puller = threading.Timer(0.3, plug.unplug)
    puller.start()
    # At that pace it would take ten seconds.
    with pytest.raises(EntropyUnavailableError) as caught:
        source.draw(10_000)
    puller.join()
    assert 0 < caught.value.dropped_bytes < 10_000


def test_a_draw_that_a_signal_interrupts_gives_the_port_back(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, other = build(), build()

    def interrupted(device: Device, received: bytearray, n: int, deadline_ns: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Device, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.draw(8)
    assert len(other.draw(8).data) == 8


class TestConfiguration:
    @pytest.mark.parametrize("mode", list(PostProcess))
    def test_the_device_is_told_its_mode_and_to_obey_its_tests(
        self, mode: PostProcess, device: SimulatedQCicada, build: Build
    ) -> None:
        device.config = replace(device.config, adaptive_proportion=False, repetition_count=False)
        build(mode=mode).draw(8)
        assert device.config.postprocess is mode
        assert device.config.adaptive_proportion
        assert device.config.repetition_count
        assert not device.config.generate_on_error

    def test_a_device_that_keeps_its_mode_is_refused(
        self, device: SimulatedQCicada, build: Build
    ) -> None:
        device.break_down("wrong_mode")
        assert "does not change to the mode raw_noise" in reason_of(
            build(mode=PostProcess.RAW_NOISE)
        )

    def test_one_that_was_reset_between_two_draws_is_told_again(
        self, device: SimulatedQCicada, build: Build
    ) -> None:
        source = build(mode=PostProcess.RAW_NOISE)
        source.draw(8)
        device.power_up()
        assert device.config.postprocess is PostProcess.SHA256
        source.draw(8)
        assert device.config.postprocess is PostProcess.RAW_NOISE
        assert not device.config.generate_on_error

    def test_one_that_calibrates_itself_is_no_worse_for_it(
        self, device: SimulatedQCicada, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer, levels = device.__class__._set_config, iter((0.25, float("nan")))

        def calibrated(payload: bytes) -> bytes:
            said = answer(device, payload)
            device.config = replace(device.config, initial_level=next(levels))
            return said

        monkeypatch.setitem(device._answers, b"\x08", calibrated)
        source = build()
        for _ in range(2):
            assert len(source.draw(8).data) == 8
            device.power_up()

    def test_what_is_done_to_the_bits_is_said(self, build: Build) -> None:
        said = [build(mode=mode).conditioning for mode in PostProcess]
        assert said == ["sha256", "raw-noise", "none"]

    def test_another_device_is_refused(self, build: Build) -> None:
        assert "QR_CRYPTALABS_SERIAL_NUMBER=QC7" in reason_of(build(serial_number="QC7"))
        assert len(build(serial_number="QC0000000217").draw(8).data) == 8

    def test_one_that_has_far_too_much_ready_is_refused(
        self, device: SimulatedQCicada, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = build()
        source.draw(8)
        monkeypatch.setattr(device, "_acknowledged", lambda: b"\x11\x01" + b"\xff" * 4)
        assert "4294967295 bytes ready" in reason_of(source)

    def test_one_that_is_starting_up_is_refused(
        self, device: SimulatedQCicada, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = build()
        source.draw(8)
        monkeypatch.setattr(device, "_acknowledged", lambda: b"\x11\x02" + bytes(4))
        assert "starting up" in reason_of(source)


def test_a_probe_says_what_the_device_has_counted(build: Build, plug: Plug) -> None:
    source = build()
    status = source.probe()
    assert status.available
    assert "failed tests: repetition count 0" in status.reason
    plug.unplug()
    assert not source.probe().available
    with pytest.raises(EntropyUnavailableError):
        source.statistics()


class TestExclusiveUse:
    def test_nobody_else_opens_the_port_until_it_is_given_back(self, build: Build) -> None:
        source, other = build(), build()
        source.draw(8)
        assert "in use by another program" in reason_of(other)
        source.close()
        assert len(other.draw(8).data) == 8

    def test_threads_queue_up_and_are_told_when_they_wait_too_long(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = build()
        with ThreadPoolExecutor(4) as pool:
            draws = list(pool.map(source.draw, [256] * 12))
        assert len({draw.data for draw in draws}) == 12
        reads, goes_on = threading.Event(), threading.Event()
        read = Device.read

        def slow(device: Device, received: bytearray, n: int, deadline_ns: int) -> Answer:
            reads.set()
            goes_on.wait(60.0)
            return read(device, received, n, deadline_ns)

        monkeypatch.setattr(Device, "read", slow)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(source.draw, 64)
            reads.wait(60.0)
            source.timeout_ms = 10
            assert "busy with other draws" in reason_of(source)
            goes_on.set()
            assert len(first.result().data) == 64

    def test_a_forked_child_waits_until_its_parent_gives_the_port_back(
        self, tmp_path: Path
    ) -> None:
        script = """
            import os, sys
            from qr_entropy_cryptalabs.source import CryptaLabsSource
            from qr_sampler import EntropyUnavailableError

            source = CryptaLabsSource.from_environment()
            assert source.draw(64).signature_verified
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
        link, key = tmp_path / "program", tmp_path / "key.pem"
        command = [sys.executable, "-m", "qr_entropy_cryptalabs.simulators", "--link", str(link)]
        program = subprocess.Popen(
            [*command, "--public-key", str(key)], stdout=subprocess.PIPE, text=True
        )
        assert program.stdout is not None
        assert program.stdout.readline() == f"{link} is ready\n"
        settings = {"PORT": str(link), "PUBLIC_KEY": str(key), "TIMEOUT_MS": "60000"}
        ours = {f"QR_CRYPTALABS_{name}": value for name, value in settings.items()}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            env={**os.environ, **ours},
            text=True,
            timeout=60,
            check=False,
        )
        program.terminate()
        program.communicate(timeout=30)
        assert done.returncode == 0, done.stderr


class TestEnvironment:
    def test_every_setting_arrives(
        self, device: SimulatedQCicada, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = tmp_path / "key"
        key.write_text(device.identity.public_key.hex())
        values = {
            "PORT": "/dev/qcicada",
            "DEVICE": "firefly",
            "SERIAL_NUMBER": "QC1",
            "MODE": "raw_samples",
            "SIGNED": "true",
            "PUBLIC_KEY": str(key),
            "CA_PUBLIC_KEY": str(key),
            "FLUSH": "false",
            "TIMEOUT_MS": "900",
        }
        for name, value in values.items():
            monkeypatch.setenv(f"QR_CRYPTALABS_{name}", value)
        source = create_source("cryptalabs")
        assert source.limits.max_bytes_per_request == 35_200
        assert source.recorded_settings == {
            "port": "/dev/qcicada",
            "device": "firefly",
            "serial_number": "QC1",
            "mode": "raw_samples",
            "signed": True,
            "public_key": device.identity.public_key.hex(),
            "ca_public_key": device.identity.public_key.hex(),
            "flush": False,
            "timeout_ms": 900,
        }

    @pytest.mark.parametrize(
        ("name", "value"), [("MODE", "loud"), ("PUBLIC_KEY", "/none"), ("TIMEOUT_MS", "0")]
    )
    def test_bad_values_are_refused_by_name(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"QR_CRYPTALABS_{name}", value)
        with pytest.raises(ConfigError, match=f"QR_CRYPTALABS_{name}"):
            create_source("cryptalabs")

    @pytest.mark.parametrize("name", ["PUBLIC_KEY", "CA_PUBLIC_KEY"])
    def test_a_key_that_has_nothing_to_verify_is_refused(
        self, name: str, device: SimulatedQCicada, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "key").write_text(device.identity.public_key.hex())
        monkeypatch.setenv(f"QR_CRYPTALABS_{name}", str(tmp_path / "key"))
        monkeypatch.setenv("QR_CRYPTALABS_SIGNED", "false")
        with pytest.raises(ConfigError, match="nothing to verify"):
            create_source("cryptalabs")

    def test_the_location_of_an_instance_is_the_port(self) -> None:
        assert CryptaLabsSettings.location == "port"

    def test_a_usb_identity_names_a_port(self, plug: Plug) -> None:
        found = [UsbPort(str(plug.link), 0x0403, 0x6015, "DK1")]
        source = CryptaLabsSource("0403:6015:DK1", ports=lambda: found)
        assert len(source.draw(8).data) == 8
        source.close()

    def test_without_a_device_it_says_what_to_set(self) -> None:
        if Path("/dev/ttyUSB0").exists():
            pytest.skip("something is plugged in")
        assert "QR_CRYPTALABS_PORT" in reason_of(CryptaLabsSource())

    def test_a_timeout_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="timeout_ms=0"):
            CryptaLabsSource("/dev/ttyUSB0", timeout_ms=0)
