# SPDX-License-Identifier: Apache-2.0
"""Records and result types: complete, immutable, slotted, and JSON without loss."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import typing
from typing import Any

import numpy as np
import pytest

import qr_sampler
from qr_sampler import (
    AmplificationResult,
    BypassRecord,
    DiscardRecord,
    DroppedBytes,
    EmissionRecord,
    EngineFields,
    EntropyDraw,
    ForcedRecord,
    GapRecord,
    GenesisRecord,
    LogitStatistics,
    Origin,
    Plugin,
    Record,
    RequestOptions,
    Resolution,
    SamplingParameters,
    SelectionResult,
    SourceLimits,
    SourceStatus,
    StepResult,
    TemperatureResult,
    TokenSamplingRecord,
    UndecidedRecord,
    dropped_record,
)
from qr_sampler.records import SCHEMA_VERSION

RESULT_TYPES = [
    BypassRecord,
    DiscardRecord,
    DroppedBytes,
    EngineFields,
    EntropyDraw,
    EmissionRecord,
    ForcedRecord,
    GapRecord,
    GenesisRecord,
    LogitStatistics,
    Origin,
    Plugin,
    RequestOptions,
    Resolution,
    SelectionResult,
    SourceLimits,
    SourceStatus,
    StepResult,
    TemperatureResult,
    TokenSamplingRecord,
    UndecidedRecord,
]
RECORD_TYPES = [
    BypassRecord,
    DiscardRecord,
    EmissionRecord,
    ForcedRecord,
    GapRecord,
    GenesisRecord,
    TokenSamplingRecord,
    UndecidedRecord,
]

SAMPLES: dict[str, Any] = {
    "int": 2**62 + 1,
    "float": 0.1 + 0.2,
    "float | None": 0.3,
    "str": 'naïve "quoted"\n\u2028\U0001f600',
    "bool": True,
    "bool | None": False,
    "int | None": None,
    "str | None": "label",
    "dict[str, str]": {"numpy": np.__version__},
    "dict[str, Any]": {"top_k": 3, "nested": [1, None]},
    "dict[str, Any] | None": None,
    "list[dict[str, Any]]": [{"name": "device", "limits": {}}],
    "list[dict[str, Any]] | None": [{"role": "accept", "u": 0.1, "bytes": 8}],
}


def sample(kind: type[Record]) -> Any:
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(**{field.name: SAMPLES[str(field.type)] for field in fields})


def test_what_amplifiers_return_is_immutable() -> None:
    result = AmplificationResult(u=np.array([0.5]), statistic=np.array([0.0]))
    assert not hasattr(result, "__dict__")
    with pytest.raises(AttributeError):
        result.u = np.array([0.25])  # type: ignore[misc]
    for shared in (result.lattice_step, result.baseline):
        with pytest.raises(ValueError, match="read-only"):
            shared[...] = 1
    assert pickle.loads(pickle.dumps(result)).u.tolist() == [0.5]


def test_every_public_result_type_is_checked_here() -> None:
    exported = [getattr(qr_sampler, name) for name in qr_sampler.__all__]
    found = {value for value in exported if dataclasses.is_dataclass(value)}
    # These are state, and no results.
    state = {qr_sampler.Measurement, qr_sampler.RunningMean, qr_sampler.StepPlan}
    assert found - state == set(RESULT_TYPES)


@pytest.mark.parametrize("kind", RESULT_TYPES)
def test_result_types_are_slotted_and_frozen(kind: Any) -> None:
    fields = dataclasses.fields(kind)
    instance = kind(**dict.fromkeys((field.name for field in fields), "x"))
    assert not hasattr(instance, "__dict__")
    for field in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(instance, field.name, "y")
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(instance, field.name)
    with pytest.raises((AttributeError, TypeError)):
        instance.something_else = 1
    assert pickle.loads(pickle.dumps(instance)) == instance


@pytest.mark.parametrize("kind", RECORD_TYPES)
def test_records_survive_json_to_the_last_bit(kind: type[Record]) -> None:
    record = sample(kind)
    values = record.as_dict()
    assert next(iter(values)) == "kind"
    assert sorted(list(values)[1:]) == sorted(field.name for field in dataclasses.fields(record))
    restored = json.loads(json.dumps(values, allow_nan=False))
    assert restored == values
    assert restored.pop("kind") == kind.kind
    assert kind(**restored) == record


def test_the_source_of_a_forced_token_stands_behind_the_reason() -> None:
    assert list(sample(ForcedRecord).as_dict()) == [
        "kind",
        "request_key",
        "sequence",
        "position",
        "token_id",
        "reason",
        "source",
        "wall_time_ns",
        "trial",
        "condition",
        "emitted",
    ]


def test_kinds_are_distinct() -> None:
    assert [kind.kind for kind in RECORD_TYPES] == [
        "bypass",
        "discard",
        "emission",
        "forced",
        "gap",
        "genesis",
        "token",
        "undecided",
    ]


@pytest.mark.parametrize("kind", RECORD_TYPES)
def test_times_and_sizes_name_their_units(kind: type[Record]) -> None:
    hints = typing.get_type_hints(kind)
    for name in hints:
        if "time" in name or name.startswith("t_"):
            assert name.endswith("_ns") or name == "kind", name


def test_token_records_hold_what_readers_rely_on() -> None:
    names = {field.name for field in dataclasses.fields(TokenSamplingRecord)}
    assert {
        "request_key",
        "position",
        "token_id",
        "u",
        "temperature",
        "entropy_nats",
        "rank",
        "probability",
        "source",
        "fallback",
        "t_logits_ns",
        "t_request_ns",
        "t_received_ns",
        "wall_time_ns",
    } <= names


def test_the_first_line_names_its_schema() -> None:
    values = {
        field.name: SAMPLES[str(field.type)]
        for field in dataclasses.fields(GenesisRecord)
        if field.name != "schema_version"
    }
    assert GenesisRecord(**values).as_dict()["schema_version"] == SCHEMA_VERSION


def test_records_need_every_field_by_name() -> None:
    with pytest.raises(TypeError):
        DiscardRecord("key", 1)  # type: ignore[call-arg,misc]
    with pytest.raises(TypeError):
        DiscardRecord(request_key="key")  # type: ignore[call-arg]


def test_options_compare_by_value() -> None:
    one, other = (
        RequestOptions(parameters=SamplingParameters(top_k=4), source="system") for _ in range(2)
    )
    assert one == other
    assert math.isclose(one.parameters.fixed_temperature, 0.7)


def test_dropped_bytes_become_a_record_of_no_token() -> None:
    dropped = DroppedBytes(source="device", count=12, reason="late", wall_time_ns=34)
    record = dropped_record(dropped)
    assert record.as_dict() == {
        "kind": "discard",
        "request_key": "",
        "sequence": "",
        "position": None,
        "reason": "late",
        "source": "device",
        "fallback": False,
        "block_bytes": 12,
        "u": None,
        "t_logits_ns": None,
        "t_request_ns": None,
        "t_received_ns": None,
        "wall_time_ns": 34,
        "commitment": "",
        "row_digest": "",
        "role": None,
        "jit": True,
        "log_q": None,
        "unit_ns": None,
    }
    assert json.loads(json.dumps(record.as_dict(), allow_nan=False)) == record.as_dict()
