# SPDX-License-Identifier: Apache-2.0
"""The vendor's library talks to the simulator, which was not made for that library's sake."""

from __future__ import annotations

import pytest
from qcicada import PostProcess, QCicada, QCicadaError, probe_device

from qr_entropy_cryptalabs.simulators import SimulatedQCicada
from qr_entropy_cryptalabs.simulators.__main__ import main
from qr_entropy_cryptalabs.simulators.signing import point_of
from qr_entropy_serial.simulators import Plug


def test_the_library_of_the_vendor_finds_a_device(device: SimulatedQCicada, plug: Plug) -> None:
    with QCicada(str(plug.link)) as qrng:
        info = qrng.get_info()
        assert (info.serial, info.hw_info) == ("QC0000000217", "CICADA-QRNG-1.1")
        status = qrng.get_status()
        assert status.initialized
        assert not status.repetition_count
        assert len(qrng.random(1_000)) == 1_000
        key = qrng.get_verified_pub_key(point_of(device.identity.authority))
        assert len(qrng.signed_read_verified(1_000, key).data) == 1_000
        qrng.set_postprocess(PostProcess.RAW_SAMPLES)
        assert qrng.get_config().postprocess is PostProcess.RAW_SAMPLES
        assert qrng.get_statistics().generated_bytes == device.generated >= 2_000
        qrng.start_continuous()
        assert len(qrng.read_continuous(1_000)) == 1_000
        qrng.stop()
        assert len(qrng.random(10)) == 10
        device.break_down("alarm")
        assert qrng.get_status().repetition_count
        device.break_down("refusal")
        with pytest.raises(QCicadaError):
            qrng.random(10)


def test_what_is_no_device_is_none_for_the_library_either(
    device: SimulatedQCicada, plug: Plug
) -> None:
    device.break_down("garbage")
    assert probe_device(str(plug.link)) is None


def test_a_link_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--link" in capsys.readouterr().err
