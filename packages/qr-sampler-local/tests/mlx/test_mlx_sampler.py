# SPDX-License-Identifier: Apache-2.0
"""What MLX-LM's loops hand out is what the ledger holds, however they end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qr_sampler import ConfigError
from qr_sampler.testing import RecordedEntropySource, WitnessSource

pytest.importorskip("mlx_lm", reason="MLX-LM is not installed")

import mlx.core as mx
import numpy as np
from mlx_lm.generate import (
    BatchGenerator,
    batch_generate,
    generate,
    generate_step,
    stream_generate,
)
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_logits_processors, make_sampler

PROMPT = (40, 445, 79, 418)
BLOCK = 16

Watch = Callable[..., Any]
Loaded = tuple[Any, Any]


class ReaderError(Exception):
    """What a reader raises."""


def _read_three(steps: Iterator[tuple[int, Any]], read: list[int]) -> None:
    """Adds three tokens to *read* and fails."""
    for token, _ in steps:
        read.append(token)
        if len(read) == 3:
            raise ReaderError


def test_generate_returns_the_text_of_the_recorded_tokens(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    with watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=7) as sequence:
        text = generate(*loaded, list(PROMPT), **sequence.arguments())
    tokens = watched.emitted(sequence.name)
    assert len(tokens) == 7
    assert text == loaded[1].decode(tokens)
    assert watched.source.bytes_drawn == 7 * BLOCK


@pytest.mark.parametrize("options", [{}, {"bypass": 1}])
def test_a_loop_that_goes_on_behind_the_end_has_the_records_of_the_text(
    watch: Watch, loaded: Loaded, options: dict[str, int]
) -> None:
    """generate_step knows no end tokens."""
    watched = watch()

    def third_is_the_end(tokens: mx.array, logits: mx.array) -> mx.array:
        end = mx.arange(logits.shape[-1]) == 2
        return mx.where(end, 0.0, -mx.inf)[None] if tokens.size == len(PROMPT) + 2 else logits

    sequence = watched.sampler.sequence(PROMPT, end_tokens=(2,), max_tokens=8, **options)
    arguments = sequence.arguments([third_is_the_end])
    steps = generate_step(mx.array(PROMPT), loaded[0], **arguments)
    read = [token for token, _ in sequence.follow(steps)]
    assert read == [*sequence.tokens[:2], *[2] * 6]
    assert sequence.closed
    if not options:
        assert watched.emitted(sequence.name) == read[:3]
        assert sequence.local.finish_reason == "stop"
    assert not watched.records("discard")


def test_what_is_drawn_ahead_of_a_reader_who_leaves_is_a_discard(
    watch: Watch, loaded: Loaded
) -> None:
    watched = watch()
    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=50)
    steps = generate_step(mx.array(PROMPT), loaded[0], **sequence.arguments())
    read = [next(steps)[0] for _ in range(3)]
    steps.close()
    assert len(sequence.tokens) == 4
    sequence.close()
    assert watched.emitted(sequence.name) == read == sequence.tokens
    assert [line["reason"] for line in watched.records("discard")] == ["not_emitted"]
    assert watched.source.bytes_drawn == 4 * BLOCK


def test_a_last_token_that_was_drawn_and_not_read_is_a_discard(
    watch: Watch, loaded: Loaded
) -> None:
    watched = watch()
    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=4)
    steps = generate_step(mx.array(PROMPT), loaded[0], **sequence.arguments())
    read = [next(steps)[0] for _ in range(3)]
    assert sequence.ended
    steps.close()
    sequence.close()
    assert watched.emitted(sequence.name) == read
    assert len(watched.records("discard")) == 1


def test_nothing_is_drawn_for_the_step_after_the_end(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    with watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=4) as sequence:
        steps = list(generate_step(mx.array(PROMPT), loaded[0], **sequence.arguments()))
    assert len(steps) == sequence.steps - 1 == 4
    assert watched.source.bytes_drawn == 4 * BLOCK
    assert watched.records("discard") == []


def test_steps_after_an_end_token_draw_nothing_and_get_that_token(
    watch: Watch, loaded: Loaded
) -> None:
    watched = watch()
    ends = range(2048)
    with watched.sampler.sequence(PROMPT, end_tokens=ends, max_tokens=9) as sequence:
        arguments = {**sequence.arguments(), "max_tokens": 3}
        tokens = [token for token, _ in generate_step(mx.array(PROMPT), loaded[0], **arguments)]
    assert watched.emitted(sequence.name) == tokens[:1]
    assert tokens[1:] == [0, 0]
    assert watched.source.bytes_drawn == BLOCK


def test_two_loops_take_turns_in_one_thread(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    short = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=3)
    long = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    first = generate_step(mx.array(PROMPT), loaded[0], **short.arguments())
    second = generate_step(mx.array(PROMPT), loaded[0], **long.arguments())
    read = [next(first)[0] for _ in range(2)]
    others = [next(second)[0] for _ in range(6)]
    for steps in (first, second):
        steps.close()
    watched.sampler.close()
    assert watched.emitted(short.name) == read
    assert watched.emitted(long.name) == others
    assert len(watched.records("discard")) == 2


def test_an_error_in_the_reader_leaves_one_token_uncertain(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    read: list[int] = []
    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    steps = generate_step(mx.array(PROMPT), loaded[0], **sequence.arguments())
    with pytest.raises(ReaderError), sequence:
        _read_three(steps, read)
    told = [(line["token_id"], line["emitted"]) for line in watched.records("token")]
    assert told == [(read[0], True), (read[1], True), (read[2], None)]
    assert len(watched.records("discard")) == 1


def test_who_follows_the_loop_is_certain(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    read: list[int] = []
    items = stream_generate(*loaded, list(PROMPT), **sequence.arguments())
    followed = sequence.follow((response.token, None) for response in items)
    with pytest.raises(ReaderError):
        _read_three(followed, read)
    followed.close()
    assert watched.emitted(sequence.name) == read
    assert len(watched.records("discard")) == 1


def test_an_error_of_the_model_leaves_no_record_of_what_nobody_read(
    watch: Watch, loaded: Loaded
) -> None:
    watched = watch()
    calls: list[int] = []

    def failing(tokens: mx.array, logits: mx.array) -> mx.array:
        calls.append(tokens.size)
        if len(calls) == 4:
            raise MemoryError
        return logits

    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    arguments = sequence.arguments([failing])
    read: list[int] = []
    steps = generate_step(mx.array(PROMPT), loaded[0], **arguments)
    with pytest.raises(MemoryError):
        _read_three(sequence.follow(steps), read)
    assert len(read) == 2
    assert watched.emitted(sequence.name) == read
    assert len(watched.records("discard")) == 1


def test_a_loop_that_fails_behind_the_logits_is_followed_by_others(
    watch: Watch, loaded: Loaded
) -> None:
    watched = watch()

    def failing(tokens: mx.array, logits: mx.array) -> mx.array:
        raise MemoryError

    broken = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    arguments = broken.arguments()
    arguments["logits_processors"].append(failing)
    with pytest.raises(MemoryError), broken:
        next(generate_step(mx.array(PROMPT), loaded[0], **arguments))
    with watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=2) as sequence:
        generate(*loaded, list(PROMPT), **sequence.arguments())
    assert len(watched.emitted(sequence.name)) == 2
    assert watched.source.bytes_drawn == 2 * BLOCK


def test_a_prompt_cache_goes_on_from_what_was_read(watch: Watch, loaded: Loaded) -> None:
    model, tokenizer = loaded
    watched = watch()
    cache = make_prompt_cache(model)
    with watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=5) as first:
        generate(model, tokenizer, list(PROMPT), prompt_cache=cache, **first.arguments())
    assert cache[0].offset == len(PROMPT) + 5
    more = [7, 8, 9]
    prompt = [*PROMPT, *first.tokens, *more]
    seen: list[Any] = []

    def look(tokens: mx.array, logits: mx.array) -> mx.array:
        seen.append(np.array(logits))
        return logits

    with watched.sampler.sequence(prompt, end_tokens=(), max_tokens=3) as second:
        generate(model, tokenizer, more, prompt_cache=cache, **second.arguments([look]))
    assert watched.emitted(first.name) == first.tokens
    assert watched.emitted(second.name) == second.tokens
    whole = np.array(model(mx.array([prompt]))[:, -1, :])
    np.testing.assert_allclose(seen[0], whole, atol=1e-3)


def test_other_processors_come_first(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    processors = make_logits_processors(logit_bias={1234: 1000.0})
    with watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=3) as sequence:
        generate(*loaded, list(PROMPT), **sequence.arguments(processors))
    assert sequence.tokens == [1234] * 3


def test_a_sequence_that_is_left_to_mlx_draws_nothing(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    with watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=5, bypass=1) as greedy:
        generate(*loaded, list(PROMPT), **greedy.arguments())
    own = make_sampler(temp=1.0)
    with watched.sampler.sequence(
        PROMPT, end_tokens=(), max_tokens=5, bypass=1, left_to=own
    ) as drawn:
        generate(*loaded, list(PROMPT), **drawn.arguments())
    steps = generate_step(mx.array(PROMPT), loaded[0], max_tokens=5)
    assert greedy.tokens == [token for token, _ in steps]
    assert len(drawn.tokens) == 5
    assert watched.source.draws == []
    assert [line["kind"] for line in watched.records("bypass", "token")] == ["bypass"] * 2


def test_rows_of_a_batch_share_a_draw_and_end_at_different_times(
    watch: Watch, loaded: Loaded
) -> None:
    watched = watch()
    prompts = [list(PROMPT), [40], list(PROMPT) * 3]
    sequences = [
        watched.sampler.sequence(prompt, end_tokens=(), max_tokens=count)
        for prompt, count in zip(prompts, (2, 6, 4), strict=True)
    ]
    batch = BatchGenerator(loaded[0], sampler=watched.sampler)
    batch.insert(
        prompts,
        [2, 6, 4],
        logits_processors=[[sequence.read_logits] for sequence in sequences],
    )
    texts: list[list[int]] = [[], [], []]
    while responses := batch.next_generated():
        for response in responses:
            texts[response.uid].append(response.token)
    batch.close()
    watched.sampler.close()
    assert [watched.emitted(sequence.name) for sequence in sequences] == texts
    assert [len(text) for text in texts] == [2, 6, 4]
    assert watched.source.bytes_drawn == 12 * BLOCK
    # A prompt of one token needs no prefill, so that its text begins a step before the others.
    assert len(watched.source.draws) == 1 + 6


@pytest.mark.parametrize("bare", [False, True])
def test_speculative_decoding_is_refused_before_anything_is_drawn(
    watch: Watch, loaded: Loaded, bare: bool
) -> None:
    model, tokenizer = loaded
    watched = watch()
    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    arguments = {"sampler": sequence, "max_tokens": 9} if bare else sequence.arguments()
    with pytest.raises(ConfigError, match=r"speculative decoding .* leave out draft_model"):
        generate(model, tokenizer, list(PROMPT), draft_model=model, **arguments)
    assert watched.source.draws == []


def test_a_batch_whose_rows_nobody_names_is_refused(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    with pytest.raises(ConfigError, match="2 rows, and 0 of them belong to a sequence"):
        batch_generate(*loaded, [list(PROMPT)] * 2, max_tokens=3, sampler=watched.sampler)
    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    with pytest.raises(ConfigError, match="one sequence for the tokens of 2 rows"):
        batch_generate(*loaded, [list(PROMPT)] * 2, max_tokens=3, sampler=sequence)
    assert watched.source.draws == []


def test_a_sequence_serves_one_generation(watch: Watch, loaded: Loaded) -> None:
    watched = watch()
    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    steps = generate_step(mx.array(PROMPT), loaded[0], **sequence.arguments())
    next(steps)
    steps.close()
    with pytest.raises(ConfigError, match="a new sequence for every generation"):
        next(generate_step(mx.array(PROMPT), loaded[0], **sequence.arguments()))


def test_log_probabilities_of_float32_choose_the_same_tokens(watch: Watch, loaded: Loaded) -> None:
    recording = WitnessSource("recorded").get_random_bytes(40 * BLOCK)
    texts = []
    for bare in (False, True):
        watched = watch(RecordedEntropySource(recording), ledger_dir=None)
        sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=40)
        arguments = {"sampler": sequence, "max_tokens": 40} if bare else sequence.arguments()
        generate(*loaded, list(PROMPT), **arguments)
        texts.append(list(sequence.tokens))
        sequence.close()
    assert texts[0] == texts[1]


def test_rounded_log_probabilities_are_told_of(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = watch()
    sequence = watched.sampler.sequence(PROMPT, end_tokens=(), max_tokens=9)
    with caplog.at_level(logging.WARNING, "qr_sampler.local"):
        for _ in range(2):
            sequence(mx.zeros((1, 64), dtype=mx.bfloat16))
    (record,) = caplog.records
    assert "rounded log-probabilities to mlx.core.bfloat16" in record.getMessage()
