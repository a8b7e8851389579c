# SPDX-License-Identifier: Apache-2.0
"""10^5 requests of random values: admission decides, and what it lets in never raises in a step.

The requests are vLLM's own ``SamplingParams``, and so is the batch update; the logits are a tensor,
and everything between them is what an engine runs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

vllm = pytest.importorskip("vllm", reason="needs vLLM, which the vllm session installs")
torch = pytest.importorskip("torch")

from vllm import SamplingParams  # noqa: E402
from vllm.v1.sample.logits_processor import BatchUpdate  # noqa: E402
from vllm.v1.serial_utils import MsgpackEncoder  # noqa: E402

from qr_sampler import SamplingParameters  # noqa: E402
from qr_sampler_vllm import processor  # noqa: E402
from qr_sampler_vllm.processor import QRSamplerLogitsProcessor  # noqa: E402
from qr_sampler_vllm.testing import engine_config  # noqa: E402

VOCAB = 50
REQUESTS = 100
"""Requests of one example."""
EXAMPLES = 1000
ROWS = 16

HOSTILE: tuple[Any, ...] = (
    None,
    "",
    "abc",
    "1e999",
    "nan",
    "-0",
    " 5 ",
    "0x10",
    b"1",
    [],
    [1, 2],
    {"a": 1},
    True,
    False,
    math.nan,
    math.inf,
    -math.inf,
    -1,
    0,
    2**31,
    2**63,
    2**64 - 1,
    -(2**63),
    5e-324,
    1e308,
    "x" * 1000,
    "\u0000\ud800",
    # Twice as deep as Python recurses; vLLM looks at every level of every request.
    reduce(lambda inner, _: [inner], range(2_000), []),
)
PLAUSIBLE: dict[str, tuple[Any, ...]] = {
    "qr_sample_count": (1, 2, 7, 64, 4096, "128", 65_537),
    "qr_signal_amplifier_type": ("zscore_mean", "exact_sum", "uniform53", "ecdf", "bogus"),
    "qr_temperature_strategy": ("fixed", "edt", "varentropy", "dynatemp", "edt_paper", "bogus"),
    "qr_entropy_source": ("system", "mock_uniform", "bogus"),
    "qr_request_key": ("a", 7, 1.5),
    "qr_bypass": (0, 1, "true", "FALSE", 2),
    "qr_follow_request": (0, 1, "true", "FALSE", 2),
}
OUR_KEYS = (
    *(f"qr_{field}" for field in SamplingParameters.model_fields),
    *(key for key in PLAUSIBLE if key not in SamplingParameters.model_fields),
    "qr_trial",
    "qr_condition",
)
KEYS = (*OUR_KEYS, "qr_bogus", "qr_\ud800", "QR_TOP_K", "somebody_elses")


def plausible(rng: random.Random, key: str) -> Any:
    """Returns a value that could be meant for *key*."""
    if key in PLAUSIBLE:
        return rng.choice(PLAUSIBLE[key])
    return rng.choice(
        (
            rng.random(),
            rng.uniform(0, 5),
            rng.randrange(-2, 60),
            str(rng.random()),
            10 ** rng.uniform(-9, 9),
        )
    )


def random_request(rng: random.Random) -> SamplingParams:
    """Returns what vLLM itself accepts, with ``qr_*`` arguments that are often nonsense."""
    extra = {rng.choice(KEYS): None for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 6)))}
    hostile = rng.random() < 0.3
    for key in extra:
        extra[key] = rng.choice(HOSTILE) if hostile else plausible(rng, key)
    return SamplingParams(
        temperature=rng.choice((0.0, 0.01, 0.5, 1.0, 2.0)),
        top_p=rng.choice((1.0, 0.9, 1e-9)),
        top_k=rng.choice((0, -1, 1, 5, 10**6)),
        min_p=rng.choice((0.0, 0.1, 1.0)),
        repetition_penalty=rng.choice((1.0, 1.0, 1.3, 1e-3, 1e-300, 1e300)),
        presence_penalty=rng.choice((0.0, 0.0, 2.0, -2.0)),
        max_tokens=rng.choice((1, 5, 1000)),
        stop_token_ids=rng.choice(([], [3, 4])),
        extra_args=extra or None,
    )


def admitted(requests: list[SamplingParams]) -> Iterator[SamplingParams]:
    """Yields the requests that are let in; every refusal is of the kind that becomes HTTP 400.

    Front end and engine are different processes, so that what is let in has to be encoded, and so
    has the text of a refusal.
    """
    encoder = MsgpackEncoder()
    for request in requests:
        try:
            QRSamplerLogitsProcessor.validate_params(request)
        except ValueError as error:
            str(error).encode()
            continue
        ours = {key: value for key, value in (request.extra_args or {}).items() if key in OUR_KEYS}
        encoder.encode(ours)
        yield request


class Engine:
    """The plugin of one engine and the batch that it follows."""

    def __init__(self) -> None:
        self._config = engine_config(max_num_seqs=ROWS, max_model_len=100)
        self._plugin = QRSamplerLogitsProcessor(self._config, torch.device("cpu"), False)

    def step(self, requests: list[SamplingParams], logits: Any) -> int:
        """Puts *requests* into the batch, makes two steps and returns how many rows were forced."""
        outputs: list[list[int]] = [[] for _ in requests]
        added = [(row, params, [1, 2], outputs[row]) for row, params in enumerate(requests)]
        self._plugin.update_state(
            BatchUpdate(batch_size=len(requests), removed=[], added=added, moved=[])
        )
        for _ in range(2):
            rows = logits.clone()
            self._plugin.apply(rows)
            for output in outputs:
                output.append(-1)
            self._plugin.update_state(None)
        return int((torch.isfinite(rows).sum(dim=1) == 1).sum())


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")
        patch.setenv("QR_REQUEST_ENTROPY_SOURCES", "mock_uniform")
        patch.setenv("QR_MAX_KS_DISTANCE", "0.5")
        patch.setenv("QR_SAMPLE_COUNT", "64")
        processor._settings.cache_clear()
        yield Engine()
    processor._settings.cache_clear()


COUNTS = {"asked": 0, "admitted": 0, "forced": 0}


@given(seed=st.integers(0, 2**64))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_admission_lets_in_never_raises_in_a_step(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    requests = [random_request(rng) for _ in range(REQUESTS)]
    accepted = list(admitted(requests))
    COUNTS["asked"] += REQUESTS
    COUNTS["admitted"] += len(accepted)
    generator = torch.Generator().manual_seed(seed % 2**63)
    for start in range(0, len(accepted), ROWS):
        rows = accepted[start : start + ROWS]
        logits = torch.randn(len(rows), VOCAB, generator=generator) * rng.choice((0.1, 3.0, 300.0))
        COUNTS["forced"] += engine.step(rows, logits)


def test_the_random_requests_were_worth_their_name() -> None:
    """Runs after the test above: both answers were given often, and most rows were forced."""
    if not COUNTS["asked"]:
        pytest.skip("the requests were not made in this run")
    assert COUNTS["asked"] >= REQUESTS * EXAMPLES
    share = COUNTS["admitted"] / COUNTS["asked"]
    assert 0.2 < share < 0.8
    assert COUNTS["forced"] > 0.5 * COUNTS["admitted"]
