# SPDX-License-Identifier: Apache-2.0
"""The sampler of MLX-LM's loops."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import mlx.core as mx

from qr_sampler import ConfigError, EntropySource, Settings
from qr_sampler_local import LEFT_TO_CALLER, LocalSampler
from qr_sampler_local.mlx.sequence import MLXSequence, Sampler

__all__ = ["DISTRIBUTIONS", "MLXSampler", "engine_name"]

DISTRIBUTIONS: Final = ("mlx-lm", "mlx", "mlx-cpu", "mlx-metal", "transformers")
"""Those that compute the logits and the tokens of prompts, whose versions are recorded."""


def engine_name() -> str:
    """Returns the name of MLX-LM with its version, for the records."""
    return f"mlx-lm {version('mlx-lm')}"


def greedy(logprobs: mx.array) -> mx.array:
    """Returns the most probable tokens, which MLX-LM takes by default.

    Args:
        logprobs: Shape ``(B, V)``.
    """
    return mx.argmax(logprobs, axis=-1)


class MLXSampler:
    """Chooses the tokens of MLX-LM's loops, and keeps their records.

    Use it in a ``with`` block, whose end writes all records, also when an exception ends it. May be
    used from several threads, each with sequences of its own.

    It is itself a sampler of MLX-LM, for loops whose rows are named by
    :attr:`MLXSequence.read_logits`, as :meth:`MLXSequence.arguments` does.

    Args:
        model: Name of the model, for the records.
        settings: What to sample with; the environment's if not given.
        model_files: Directory of the model's files, whose digests are recorded.
        sources: Sources of the caller's own, as for :class:`~qr_sampler_local.LocalSampler`.

    Raises:
        ConfigError: When a setting cannot be served.
        PluginError: When a configured source or its fallback is unknown, contested or broken.
    """

    def __init__(
        self,
        model: str,
        settings: Settings | None = None,
        *,
        model_files: str | Path | None = None,
        sources: Mapping[str, EntropySource] | Iterable[EntropySource] | None = None,
    ) -> None:
        self.local = LocalSampler(
            model,
            settings,
            engine=engine_name(),
            model_files=model_files,
            sources=sources,
            distributions=DISTRIBUTIONS,
        )
        """What decides and records."""
        self._sequences: dict[int, MLXSequence] = {}
        """Those that are open, by identity."""
        self._named = threading.local()
        """Whose rows the logits of the step are that each thread is about to decide."""

    def sequence(
        self,
        prompt_ids: Any = (),
        *,
        end_tokens: Iterable[int],
        max_tokens: int,
        left_to: Sampler = greedy,
        **options: Any,
    ) -> MLXSequence:
        """Returns a new sequence, for one generation.

        Args:
            prompt_ids: Token ids of the whole prompt, for the records; what a prompt cache holds of
                it included.
            end_tokens: Tokens that end it, as ``tokenizer.eos_token_ids``; empty if none does.
            max_tokens: Number of tokens after which it ends.
            left_to: What chooses its tokens with ``qr_bypass``, instead of an entropy source.
            **options: Its ``qr_*`` keys, with or without that prefix, and what else
                :meth:`~qr_sampler_local.LocalSampler.sequence` takes.

        Raises:
            ConfigError: When an option or a token id cannot be used.
            RuntimeError: When the sampler is closed.
        """
        local = self.local.sequence(
            prompt_ids,
            end_tokens=sorted(end_tokens),
            max_tokens=max_tokens,
            # Its steps say nothing: see MLXSequence.handed_out.
            steps_in_flight=sys.maxsize,
            **options,
        )
        made = MLXSequence(self, local, max_tokens=max_tokens, left_to=left_to)
        self._sequences[id(made)] = made
        return made

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Returns the tokens of a step, whose rows :meth:`MLXSequence.read_logits` has named.

        Args:
            logprobs: Shape ``(B, V)``; not used, because the raw logits are at hand.

        Returns:
            Shape ``(B,)``, uint32.

        Raises:
            ConfigError: When nobody has said whose rows they are.
            EntropyUnavailableError: As :meth:`~qr_sampler_local.LocalSampler.step`.
            ComponentError: Likewise.
        """
        named, self._named.rows = self._rows_named(), []
        if len(named) != logprobs.shape[0]:
            raise ConfigError(
                f"MLX-LM asks for the tokens of {logprobs.shape[0]} rows, and {len(named)} of them "
                "belong to a sequence; give every row its own, with "
                "logits_processors=[sequence.read_logits] behind all others"
            )
        return self.choose([sequence for sequence, _ in named], [row for _, row in named], logprobs)

    def choose(
        self, sequences: list[MLXSequence], rows: list[mx.array], logprobs: mx.array
    ) -> mx.array:
        """Returns the tokens of a step whose rows are known.

        Args:
            sequences: Whose they are.
            rows: The logits, shape ``(1, V)`` each, lazy or not.
            logprobs: Shape ``(B, V)``, for sequences that are left to others.
        """
        for sequence in sequences:
            self.local.emitted(sequence.local, sequence.handed_out)
        logits = rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=0)
        token_ids = self.local.step(logits, [sequence.local for sequence in sequences])
        for line, sequence in enumerate(sequences):
            if token_ids[line] == LEFT_TO_CALLER:
                token_ids[line] = self._left_to_others(sequence, logprobs[line : line + 1])
            sequence.steps += 1
        return mx.array(token_ids, dtype=mx.uint32)

    def name_row(self, sequence: MLXSequence, logits: mx.array) -> None:
        """Takes note that the next row of this thread's step belongs to *sequence*.

        Args:
            sequence: The sequence.
            logits: The row, shape ``(1, V)``.
        """
        self._named.rows = [*self._rows_named(), (sequence, logits)]

    def forget(self, sequence: MLXSequence) -> None:
        """Takes note that *sequence* is closed."""
        self._sequences.pop(id(sequence), None)

    def close(self, *, interrupted: bool = False) -> None:
        """Ends all sequences and the records. A second call does nothing.

        Args:
            interrupted: Whether an exception has ended the loops; see :meth:`MLXSequence.close`.
        """
        for sequence in list(self._sequences.values()):
            sequence.close(interrupted=interrupted)
        self.local.close()

    def __enter__(self) -> MLXSampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(interrupted=error is not None)

    def _left_to_others(self, sequence: MLXSequence, logprobs: mx.array) -> int:
        """Returns the token that others choose, or the end token of a sequence that has ended."""
        if sequence.ended:
            return sequence.local.end_token
        token_id = int(sequence.left_to(logprobs).item())
        self.local.chosen(sequence.local, token_id)
        return token_id

    def _rows_named(self) -> list[tuple[MLXSequence, mx.array]]:
        # A loop that was given up between the two calls has left its rows here.
        return [named for named in getattr(self._named, "rows", ()) if not named[0].closed]
