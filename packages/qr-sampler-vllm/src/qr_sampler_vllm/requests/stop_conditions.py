# SPDX-License-Identifier: Apache-2.0
"""When vLLM ends a sequence: the conditions of its scheduler and of its detokenizer.

The ledger holds emitted tokens only, and a sampler is not told which ones were: with asynchronous
scheduling vLLM samples on before it has seen a stop token, and stop strings are looked for in the
front end, another process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

__all__ = ["DetokenizedStopStrings", "StopConditions", "StopStrings", "ending_token"]


class StopStrings(Protocol):
    """Looks for stop strings in the text of a sequence."""

    def found_with(self, token_id: int) -> bool:
        """Takes in the next token and returns whether it completes a stop string."""

    def start_again(self, tokens: Sequence[int]) -> None:
        """Forgets what was taken in and takes in *tokens*, of which none completes one."""


@dataclass(slots=True)
class StopConditions:
    """What ends one sequence."""

    token_ids: frozenset[int]
    """Tokens that end it; without the end-of-text token if the request asked to ignore that one."""
    max_tokens: int | None = None
    """Number of tokens after which it ends."""
    max_length: int | None = None
    """The same for the prompt and the tokens together."""
    prompt_length: int = 0
    """Number of tokens in the prompt."""
    min_tokens: int = 0
    """Number of tokens before which repetition does not end it."""
    repeats: Callable[[Sequence[int]], bool] | None = None
    """Whether its tokens repeat themselves in a way that the request wants to be its end."""
    stop_strings: StopStrings | None = None
    """Looks for stop strings, if it has any."""

    @classmethod
    def of(
        cls, sampling_params: Any, *, max_model_len: int | None = None, prompt_length: int = 0
    ) -> StopConditions:
        """Returns the conditions of vLLM's *sampling_params*, stop strings left out."""
        return cls(
            token_ids=_stop_token_ids(sampling_params),
            max_tokens=sampling_params.max_tokens,
            max_length=max_model_len,
            prompt_length=prompt_length,
            min_tokens=sampling_params.min_tokens,
            repeats=_repetition_check(sampling_params),
        )

    def end_with(self, tokens: Sequence[int]) -> bool:
        """Takes in the last of *tokens* and returns whether the sequence ends with it.

        The order is that of vLLM's ``check_stop``; its detokenizer comes after that.

        Args:
            tokens: All tokens of the sequence. To be called once for each of them, in order.
        """
        return self._scheduler_stops(tokens) or (
            self.stop_strings is not None and self.stop_strings.found_with(tokens[-1])
        )

    def start_again(self, tokens: Sequence[int]) -> None:
        """Goes on from *tokens*, which need not be what was taken in so far."""
        if self.stop_strings is not None:
            self.stop_strings.start_again(tokens)

    def _scheduler_stops(self, tokens: Sequence[int]) -> bool:
        count = len(tokens)
        if tokens[-1] in self.token_ids:
            return True
        if self.max_tokens is not None and count >= self.max_tokens:
            return True
        if self.max_length is not None and self.prompt_length + count >= self.max_length:
            return True
        return count >= self.min_tokens and self.repeats is not None and self.repeats(tokens)


class DetokenizedStopStrings:
    """Finds stop strings with the detokenizer that vLLM's front end finds them with.

    Args:
        model_config: vLLM's ``ModelConfig``, which names the tokenizer.
        sampling_params: The request's ``SamplingParams``.
        prompt_token_ids: Its prompt, which the text of the first token can depend on.
    """

    def __init__(
        self, model_config: Any, sampling_params: Any, prompt_token_ids: Sequence[int]
    ) -> None:
        from vllm.tokenizers import cached_tokenizer_from_config

        # What a detokenizer reads of vLLM's ``EngineCoreRequest``.
        self._request: Any = SimpleNamespace(
            request_id="",
            prompt_token_ids=list(prompt_token_ids),
            prompt_embeds=None,
            sampling_params=sampling_params,
        )
        self._tokenizer = cached_tokenizer_from_config(model_config)
        self.start_again(())

    def found_with(self, token_id: int) -> bool:
        """Takes in the next token and returns whether it completes a stop string."""
        return bool(self._detokenizer.update([token_id], False))

    def start_again(self, tokens: Sequence[int]) -> None:
        """Forgets what was taken in and takes in *tokens*, of which none completes one."""
        from vllm.v1.engine.detokenizer import IncrementalDetokenizer

        self._detokenizer = IncrementalDetokenizer.from_new_request(self._tokenizer, self._request)
        for token_id in tokens:
            if token_id >= 0:
                self._detokenizer.update([token_id], False)


def ending_token(sampling_params: Any) -> int | None:
    """Returns a token with which vLLM ends the request, ``None`` if there is none."""
    token_ids = _stop_token_ids(sampling_params)
    eos = sampling_params.eos_token_id
    return eos if eos in token_ids else min(token_ids, default=None)


def _stop_token_ids(sampling_params: Any) -> frozenset[int]:
    """Returns the tokens on which vLLM's scheduler ends a request.

    Not ``all_stop_token_ids``: that set also holds an end-of-text token that is to be ignored.
    """
    stop_token_ids = set(sampling_params.stop_token_ids or ())
    if sampling_params.eos_token_id is not None:
        stop_token_ids.add(sampling_params.eos_token_id)
    return frozenset(stop_token_ids)


def _repetition_check(sampling_params: Any) -> Callable[[Sequence[int]], bool] | None:
    wanted = getattr(sampling_params, "repetition_detection", None)
    if wanted is None:
        return None
    from vllm.v1.core.sched.utils import check_sequence_repetition

    return lambda tokens: bool(check_sequence_repetition(tokens, wanted))
