# SPDX-License-Identifier: Apache-2.0
"""The penalties of a request: which it asks for, and which are refused."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler import ConfigError
from qr_sampler_vllm.requests.penalties import (
    REPETITION_LIMIT,
    Penalties,
    check_penalties,
    distinct_tokens,
)


def params(repetition: float = 1.0, frequency: float = 0.0, presence: float = 0.0) -> Any:
    """Same fields as vLLM's ``SamplingParams``."""
    return SimpleNamespace(
        repetition_penalty=repetition, frequency_penalty=frequency, presence_penalty=presence
    )


def test_neutral_penalties_are_none() -> None:
    assert Penalties.of(params()) is None
    assert Penalties.of(params(frequency=-0.0, presence=-0.0)) is None


@pytest.mark.parametrize("values", [(1.1, 0.0, 0.0), (1.0, 0.2, 0.0), (1.0, 0.0, -0.3)])
def test_any_other_penalty_is_kept(values: tuple[float, float, float]) -> None:
    assert Penalties.of(params(*values)) == Penalties(*values)


@pytest.mark.parametrize("repetition", [1.0, 0.01, 100.0, REPETITION_LIMIT, 1 / REPETITION_LIMIT])
def test_repetition_penalties_that_float32_can_carry_are_accepted(repetition: float) -> None:
    check_penalties(params(repetition))


@pytest.mark.parametrize("repetition", [1e-46, 1e-38, 1e39, math.inf, math.nan, 0.0, -1.0])
def test_others_are_refused_with_their_value(repetition: float) -> None:
    with pytest.raises(ConfigError, match=f"repetition_penalty={repetition}".replace("+", r"\+")):
        check_penalties(params(repetition))


def test_distinct_tokens_of_a_prompt() -> None:
    assert distinct_tokens([5, 2, 5, 5]).tolist() == [2, 5]
    assert distinct_tokens([]).tolist() == []
    assert distinct_tokens(None).tolist() == []
