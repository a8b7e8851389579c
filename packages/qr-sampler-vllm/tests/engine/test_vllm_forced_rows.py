# SPDX-License-Identifier: Apache-2.0
"""What vLLM's own sampler makes of rows in which one token is left."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import make_dataclass
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")
pytest.importorskip("vllm.v1.sample.sampler", reason="needs vLLM, which the vllm session installs")

from vllm.v1.sample.logits_processor import LogitsProcessors  # noqa: E402
from vllm.v1.sample.metadata import SamplingMetadata  # noqa: E402
from vllm.v1.sample.sampler import Sampler  # noqa: E402

from qr_sampler_vllm.runners import forced_rows  # noqa: E402
from qr_sampler_vllm.runners.v1 import RunnerV1  # noqa: E402
from qr_sampler_vllm.testing import engine_config, sampling_params  # noqa: E402

VOCAB, TOKENS = 50, [3, 49, 0]


@pytest.fixture(autouse=True, scope="module")
def _wrapped() -> None:
    forced_rows.take_largest_of_forced()


def forced() -> Any:
    logits = torch.full((len(TOKENS), VOCAB), -math.inf)
    logits[range(len(TOKENS)), TOKENS] = 0.0
    return logits


def metadata(**changes: Any) -> Any:
    rows, nothing = len(TOKENS), torch.zeros(len(TOKENS))
    given: dict[str, Any] = {
        "temperature": torch.full((rows,), 0.7),
        "all_greedy": False,
        "all_random": True,
        "top_p": torch.full((rows,), 0.9),
        "top_k": torch.full((rows,), 40, dtype=torch.int32),
        "generators": {0: torch.Generator().manual_seed(1)},
        "max_num_logprobs": None,
        "no_penalties": True,
        "prompt_token_ids": None,
        "frequency_penalties": nothing,
        "presence_penalties": nothing,
        "repetition_penalties": nothing + 1.0,
        "output_token_ids": [[] for _ in range(rows)],
        "allowed_token_ids_mask": None,
        "bad_words_token_ids": {},
        "logitsprocs": LogitsProcessors(),
    }
    return SamplingMetadata(**{**given, **changes})


def sampled(logits: Any, batch: Any, mode: str = "raw_logprobs") -> Any:
    return Sampler(mode)(logits, batch)


def test_forced_tokens_are_taken_without_a_draw() -> None:
    logits, batch = forced(), metadata(generators={})
    state = torch.get_rng_state()
    assert sampled(logits, batch).sampled_token_ids[:, 0].tolist() == TOKENS
    assert not torch.equal(state, torch.get_rng_state()), "the test proves nothing"
    state = torch.get_rng_state()
    logits = forced()
    forced_rows.mark_forced(logits)
    assert sampled(logits, batch).sampled_token_ids[:, 0].tolist() == TOKENS
    assert torch.equal(state, torch.get_rng_state())
    assert (batch.all_greedy, batch.all_random) == (False, True)


def test_a_mark_holds_for_one_step() -> None:
    logits = forced()
    forced_rows.mark_forced(logits)
    sampled(logits, metadata(generators={}))
    state = torch.get_rng_state()
    sampled(logits, metadata(generators={}))
    assert not torch.equal(state, torch.get_rng_state())


def test_a_generator_with_a_seed_advances_as_vllm_expects_it() -> None:
    logits, batch = forced(), metadata()
    forced_rows.mark_forced(logits)
    state = batch.generators[0].get_state()
    assert sampled(logits, batch).sampled_token_ids[:, 0].tolist() == TOKENS
    assert not torch.equal(state, batch.generators[0].get_state())


def test_rows_that_are_not_marked_are_drawn_as_vllm_draws_them() -> None:
    generators = [{row: torch.Generator().manual_seed(row) for row in range(3)} for _ in range(2)]
    logits = torch.randn((3, VOCAB), generator=torch.Generator().manual_seed(3))
    draw = Sampler.sample.__wrapped__
    expected, _ = draw(Sampler(), logits.clone(), metadata(generators=generators[0]))
    found, _ = Sampler().sample(logits.clone(), metadata(generators=generators[1]))
    assert found.tolist() == expected.tolist()


def test_what_a_later_stage_has_changed_counts() -> None:
    logits = forced()
    forced_rows.mark_forced(logits)
    logits[1] = -math.inf
    logits[1, 7] = 1e9
    assert sampled(logits, metadata(generators={})).sampled_token_ids[:, 0].tolist() == [3, 7, 0]


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logprobs", "processed_logits"])
def test_log_probabilities_are_the_same(mode: str) -> None:
    found = []
    for mark in (False, True):
        logits = forced()
        if mark:
            forced_rows.mark_forced(logits)
        batch = metadata(max_num_logprobs=2, generators={})
        found.append(sampled(logits, batch, mode).logprobs_tensors)
    plain, marked = found
    assert plain.logprobs[:, 0].tolist() == marked.logprobs[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert plain.logprob_token_ids[:, 0].tolist() == marked.logprob_token_ids[:, 0].tolist()
    assert plain.selected_token_ranks.tolist() == marked.selected_token_ranks.tolist()


def test_each_batch_is_described_by_its_own_metadata_and_no_longer() -> None:
    one, other = metadata(), metadata(max_num_logprobs=1)
    greedy = forced_rows._greedy(one)
    assert (greedy.all_greedy, greedy.all_random) == (True, False)
    assert forced_rows._greedy(one) is greedy
    assert forced_rows._greedy(other).max_num_logprobs == 1
    gone = weakref.ref(one)
    del one, greedy
    gc.collect()
    assert gone() is None


FIELDS = ("all_greedy", "all_random", "generators")


@pytest.mark.parametrize(
    "other",
    [
        dict,
        make_dataclass("Renamed", ["all_greedy", "generators"]),
        make_dataclass("Frozen", FIELDS, frozen=True),
        make_dataclass("Slotted", FIELDS, slots=True),
    ],
)
def test_a_sampler_of_another_shape_is_left_alone(
    other: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Sampler.sample.__wrapped__
    monkeypatch.setattr(Sampler, "sample", draw)
    monkeypatch.setattr("vllm.v1.sample.metadata.SamplingMetadata", other)
    forced_rows.take_largest_of_forced()
    assert Sampler.sample is draw


class Ranks:
    """Several ranks, of which this is the first."""

    leads = True

    def tell(self, logits: Any, tokens: Any) -> None:
        """Nobody listens."""


@pytest.mark.parametrize("ranks", [None, Ranks()], ids=["alone", "one of several"])
def test_only_an_engine_without_other_ranks_marks_what_it_forces(
    ranks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generators of ranks have to stay equal, for rows that are left to vLLM."""
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")
    runner = RunnerV1(engine_config(), ranks)
    added = [(0, sampling_params(), [1], [])]
    runner.update_state(SimpleNamespace(batch_size=1, removed=[], added=added, moved=[]))
    logits = torch.zeros((1, VOCAB))
    runner.apply(logits)
    runner.close()
    assert torch.isfinite(logits).sum() == 1
    assert ("qr_sampler_forced" in vars(logits)) == (ranks is None)


STATES = """
    import torch
    from vllm import SamplingParams

    llm = engine()

    def advances(**extra):
        before = torch.get_rng_state()
        llm.generate(["Light is"] * 2, SamplingParams(max_tokens=8, extra_args=extra))
        return not torch.equal(before, torch.get_rng_state())

    result([advances(), advances(qr_bypass=1), advances()])
"""


def test_an_engine_draws_only_what_is_left_to_it(offline_engine: Callable[[str], Any]) -> None:
    assert offline_engine("v1").result(STATES, {}) == [False, True, False]
