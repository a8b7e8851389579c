# SPDX-License-Identifier: Apache-2.0
"""The per-token log lines and their levels."""

from __future__ import annotations

import json
import logging
from typing import Literal

import numpy as np
import pytest

from qr_sampler import (
    DiscardRecord,
    FallbackEntropySource,
    ForcedRecord,
    Record,
    RequestOptions,
    Rows,
    SamplingLogger,
    SamplingParameters,
    SamplingPipeline,
    Settings,
    TokenSamplingRecord,
    UndecidedRecord,
    discard_record,
    token_record,
)
from qr_sampler.testing import ConstantEntropySource


@pytest.fixture
def records() -> tuple[TokenSamplingRecord, DiscardRecord]:
    source = FallbackEntropySource(
        ConstantEntropySource(name="device", fail_with="unplugged"),
        ConstantEntropySource(name="spare"),
    )
    options = RequestOptions(parameters=SamplingParameters(sample_count=8), source="system")
    logits = np.log(np.array([[0.5, 0.25, 0.25]], dtype=np.float32))
    pipeline = SamplingPipeline(Settings.load(), source)
    step = pipeline.sample(logits, Rows([options.parameters]))
    assert step is not None
    return (
        token_record(step, 0, request_key="req", sequence="s", position=3, options=options),
        discard_record(step, 0, request_key="req", sequence="s", position=4, reason="aborted"),
    )


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.name == "qr_sampler"]


def test_summary_is_one_line_per_token(
    caplog: pytest.LogCaptureFixture, records: tuple[TokenSamplingRecord, Record]
) -> None:
    caplog.set_level(logging.INFO, logger="qr_sampler")
    SamplingLogger().log(records)
    (line,) = messages(caplog)
    assert "\n" not in line
    for part in ("token 0", "req", "[3]", f"u={records[0].u:.6f}", "rank=0", "spare", "FALLBACK"):
        assert part in line
    assert caplog.records[0].levelno == logging.INFO


def test_no_flag_without_a_fallback(
    caplog: pytest.LogCaptureFixture, records: tuple[TokenSamplingRecord, Record]
) -> None:
    caplog.set_level(logging.INFO, logger="qr_sampler")
    values = {**records[0].as_dict(), "fallback": False}
    del values["kind"]
    SamplingLogger("summary").log([TokenSamplingRecord(**values)])
    assert "FALLBACK" not in messages(caplog)[0]


def test_full_is_the_record_as_json(
    caplog: pytest.LogCaptureFixture, records: tuple[TokenSamplingRecord, Record]
) -> None:
    caplog.set_level(logging.INFO, logger="qr_sampler")
    SamplingLogger("full").log(records)
    (line,) = messages(caplog)
    assert json.loads(line) == records[0].as_dict()


def test_none_is_silent(
    caplog: pytest.LogCaptureFixture, records: tuple[TokenSamplingRecord, Record]
) -> None:
    caplog.set_level(logging.DEBUG, logger="qr_sampler")
    SamplingLogger("none").log(records)
    assert messages(caplog) == []


def test_nothing_is_rendered_while_info_is_disabled(
    caplog: pytest.LogCaptureFixture, records: tuple[TokenSamplingRecord, Record]
) -> None:
    caplog.set_level(logging.WARNING, logger="qr_sampler")

    def must_not_be_read() -> object:
        raise AssertionError("records were read although nothing is logged")
        yield

    SamplingLogger("full").log(must_not_be_read())  # type: ignore[arg-type]
    assert messages(caplog) == []


def test_a_client_cannot_forge_log_lines(
    caplog: pytest.LogCaptureFixture, records: tuple[TokenSamplingRecord, Record]
) -> None:
    caplog.set_level(logging.INFO, logger="qr_sampler")
    values = {**records[0].as_dict(), "request_key": "x\nINFO token 5 at admin[0]: u=0.5"}
    del values["kind"]
    for level in ("summary", "full"):
        SamplingLogger(level).log([TokenSamplingRecord(**values)])  # type: ignore[arg-type]
    assert all(len(line.splitlines()) == 1 for line in messages(caplog))


@pytest.mark.parametrize("level", ["summary", "full"])
def test_a_token_without_entropy_is_logged_as_such(
    caplog: pytest.LogCaptureFixture, level: Literal["summary", "full"]
) -> None:
    caplog.set_level(logging.INFO, logger="qr_sampler")
    forced = ForcedRecord(
        request_key="req",
        sequence="s",
        position=7,
        token_id=2,
        reason="unplugged",
        source="device",
        wall_time_ns=1,
    )
    SamplingLogger(level).log([forced])
    (line,) = messages(caplog)
    for part in ("2", "req", "7", "device", "forced"):
        assert part in line.lower()


def test_a_row_that_could_not_be_decided_is_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="qr_sampler")
    record = UndecidedRecord(
        request_key="req", sequence="s", position=2, token_id=7, reason="nan", wall_time_ns=1
    )
    for level in ("summary", "full"):
        SamplingLogger(level).log([record])  # type: ignore[arg-type]
    summary, full = messages(caplog)
    assert summary == "token 7 at 'req'[2]: UNDECIDED, nan"
    assert json.loads(full) == record.as_dict()
