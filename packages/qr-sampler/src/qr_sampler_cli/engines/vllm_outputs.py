# SPDX-License-Identifier: Apache-2.0
"""The tokens that vLLM hands out, each kept until its record has arrived as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qr_sampler_cli.engines.arriving_records import ArrivingRecords
from qr_sampler_local.engines import EmittedToken, FinishReason, Generated, TokenListener

__all__ = ["ArrivingTokens"]

_REASONS: Final[Mapping[str | None, FinishReason]] = {None: "interrupted", "length": "length"}
"""Of vLLM's reasons those that are not a token that has ended the text."""


class ArrivingTokens:
    """The tokens of the requests of one call.

    Args:
        request_keys: Names each request in the records.
        records: The records of the engine.
        on_token: Called with each token.
    """

    def __init__(
        self,
        request_keys: Sequence[str],
        records: ArrivingRecords,
        on_token: TokenListener | None,
    ) -> None:
        self._keys = request_keys
        self._records = records
        self._on_token = on_token
        records.expect(request_keys)
        self._tokens: list[list[int]] = [[] for _ in request_keys]
        self._reasons: list[str | None] = [None for _ in request_keys]
        self._handed_over = [0 for _ in request_keys]

    def take(self, prompt: int, output: Any) -> None:
        """Takes what a step has brought.

        Args:
            prompt: Index of the prompt.
            output: vLLM's ``CompletionOutput``, with the tokens that are new.
        """
        self._tokens[prompt].extend(int(token) for token in output.token_ids)
        self._reasons[prompt] = output.finish_reason

    def hand_over(self, *, all_of_them: bool = False) -> None:
        """Hands over the tokens whose records have arrived, each prompt's in order.

        Args:
            all_of_them: Whether those without a record are handed over, too.
        """
        if self._on_token is None:
            return
        self._records.read()
        for prompt, tokens in enumerate(self._tokens):
            while self._handed_over[prompt] < len(tokens):
                position = self._handed_over[prompt]
                record = self._records.take(self._keys[prompt], position)
                if record is None and not all_of_them:
                    break
                # Counted first: one at which the listener raises was handed over, too.
                self._handed_over[prompt] += 1
                self._on_token(_emitted(prompt, position, tokens[position], record or {}))

    def all(self, *, hand_over: bool) -> list[Generated]:
        """Returns what was emitted.

        Args:
            hand_over: Whether the rest is handed over first.
        """
        self._records.read()
        if hand_over:
            self.hand_over(all_of_them=True)
        generated = [
            Generated(
                sequence=self._records.sequence(key),
                request_key=key,
                tokens=tuple(tokens),
                finish_reason=_REASONS.get(reason, "stop"),
            )
            for key, tokens, reason in zip(self._keys, self._tokens, self._reasons, strict=True)
        ]
        for key in self._keys:
            self._records.forget(key)
        return generated


def _emitted(prompt: int, position: int, token_id: int, record: Mapping[str, Any]) -> EmittedToken:
    return EmittedToken(
        prompt,
        position,
        token_id,
        u=record.get("u"),
        rank=record.get("rank"),
        source=record.get("source"),
        fallback=bool(record.get("fallback")),
    )
