# SPDX-License-Identifier: Apache-2.0
"""When vLLM ends a sequence: the conditions of its scheduler and of its detokenizer.

Neither informs the sampler: with asynchronous scheduling vLLM keeps sampling before it has seen a
stop token, and the front end, another process, looks for stop strings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from qr_sampler.host import StopConditions

__all__ = ["DetokenizedStopStrings", "ending_token", "stop_conditions_of"]


def stop_conditions_of(
    sampling_params: Any, *, max_model_len: int | None = None, prompt_length: int = 0
) -> StopConditions:
    """Returns the conditions in vLLM's *sampling_params*, without stop strings.

    They are checked in the order of vLLM's ``check_stop``, which its detokenizer follows.
    """
    return StopConditions(
        token_ids=_stop_token_ids(sampling_params),
        max_tokens=sampling_params.max_tokens,
        max_length=max_model_len,
        prompt_length=prompt_length,
        min_tokens=sampling_params.min_tokens,
        repeats=_repetition_check(sampling_params),
    )


class DetokenizedStopStrings:
    """Finds stop strings with the same detokenizer as vLLM's front end.

    Args:
        model_config: vLLM's ``ModelConfig``, which names the tokenizer.
        sampling_params: The request's ``SamplingParams``.
        prompt_token_ids: Its prompt, on which the text of the first token can depend.
    """

    def __init__(
        self, model_config: Any, sampling_params: Any, prompt_token_ids: Sequence[int]
    ) -> None:
        from vllm.tokenizers import cached_tokenizer_from_config

        # The part of vLLM's ``EngineCoreRequest`` that a detokenizer reads.
        self._request: Any = SimpleNamespace(
            request_id="",
            prompt_token_ids=list(prompt_token_ids),
            prompt_embeds=None,
            sampling_params=sampling_params,
        )
        self._tokenizer = cached_tokenizer_from_config(model_config)
        self.start_again(())

    def found_with(self, token_id: int) -> bool:
        """Consumes the next token and returns whether it completes a stop string."""
        return bool(self._detokenizer.update([token_id], False))

    def start_again(self, tokens: Sequence[int]) -> None:
        """Starts again from *tokens*, none of which completes a stop string."""
        from vllm.v1.engine.detokenizer import IncrementalDetokenizer

        self._detokenizer = IncrementalDetokenizer.from_new_request(self._tokenizer, self._request)
        for token_id in tokens:
            if token_id >= 0:
                self._detokenizer.update([token_id], False)


def ending_token(sampling_params: Any, vocab_size: int) -> int | None:
    """Returns a token that makes vLLM end the request, or ``None`` if there is none.

    Args:
        sampling_params: The request's ``SamplingParams``, which may name tokens that do not exist.
        vocab_size: Number of tokens that exist.
    """
    token_ids = {token for token in _stop_token_ids(sampling_params) if 0 <= token < vocab_size}
    eos = sampling_params.eos_token_id
    return eos if eos in token_ids else min(token_ids, default=None)


def _stop_token_ids(sampling_params: Any) -> frozenset[int]:
    """Returns the tokens on which vLLM's scheduler ends a request.

    Not ``all_stop_token_ids``: that set also contains an end-of-text token that is to be ignored.
    """
    stop_token_ids = set(sampling_params.stop_token_ids or ())
    if sampling_params.eos_token_id is not None:
        stop_token_ids.add(sampling_params.eos_token_id)
    return frozenset(stop_token_ids)


def _repetition_check(sampling_params: Any) -> Callable[[Sequence[int]], bool] | None:
    detection = getattr(sampling_params, "repetition_detection", None)
    if detection is None:
        return None
    from vllm.v1.core.sched.utils import check_sequence_repetition

    return lambda tokens: bool(check_sequence_repetition(tokens, detection))
