# SPDX-License-Identifier: Apache-2.0
"""Recorded logits give under MLX-LM the tokens and records that they give everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.testing.hosts.recorded_logits import PlayedBytes, Recording, check_recorded

pytest.importorskip("mlx_lm", reason="MLX-LM is not installed")

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, generate_step

from qr_sampler_local.mlx import MLXSampler, MLXSequence

PROMPT = (40, 445, 79)
ROWS_TOGETHER = 9

Replay = Callable[[mx.array, mx.array], mx.array]


def replays(recording: Recording, row: int) -> Replay:
    """Returns a processor that puts recorded logits in the place of the model's."""

    def replay(tokens: mx.array, logits: mx.array) -> mx.array:
        # The step that MLX-LM begins after the last one decides nothing.
        step = min(tokens.size - len(PROMPT), recording.steps - 1)
        return mx.array(recording.logits[step, row])[None]

    return replay


def begun(sampler: MLXSampler, recording: Recording) -> list[MLXSequence]:
    """Returns a sequence for each text."""
    return [
        sampler.sequence(PROMPT, end_tokens=[0], max_tokens=recording.steps, **options)
        for options in recording.options
    ]


def test_one_text_after_the_other(tmp_path: Path, loaded: tuple[Any, Any]) -> None:
    def play(
        recording: Recording, settings: Settings, source: PlayedBytes
    ) -> Sequence[Sequence[int]]:
        texts: list[list[int]] = []
        with MLXSampler("recording", settings, sources=[source]) as sampler:
            for row, sequence in enumerate(begun(sampler, recording)):
                arguments = sequence.arguments([replays(recording, row)])
                steps = generate_step(mx.array(PROMPT), loaded[0], **arguments)
                texts.append([token for token, _ in sequence.follow(steps)])
        return texts

    check_recorded(play, tmp_path)


def test_texts_in_batches(tmp_path: Path, loaded: tuple[Any, Any]) -> None:
    def play(
        recording: Recording, settings: Settings, source: PlayedBytes
    ) -> Sequence[Sequence[int]]:
        texts: list[list[int]] = [[] for _ in recording.options]
        with MLXSampler("recording", settings, sources=[source]) as sampler:
            sequences = begun(sampler, recording)
            batch = BatchGenerator(
                loaded[0],
                sampler=sampler,
                prefill_batch_size=ROWS_TOGETHER,
                completion_batch_size=ROWS_TOGETHER,
            )
            batch.insert(
                [list(PROMPT)] * recording.rows,
                [recording.steps] * recording.rows,
                logits_processors=[
                    [replays(recording, row), sequence.read_logits]
                    for row, sequence in enumerate(sequences)
                ],
            )
            while responses := batch.next_generated():
                for response in responses:
                    texts[response.uid].append(response.token)
            batch.close()
        return texts

    check_recorded(play, tmp_path)
