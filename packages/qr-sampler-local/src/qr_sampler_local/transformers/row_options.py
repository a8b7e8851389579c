# SPDX-License-Identifier: Apache-2.0
"""The options of the rows of a batch: the same for all of them, or those of each prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qr_sampler import EngineFields
from qr_sampler.admission.overrides import BYPASS_KEY, FOLLOW_KEY, KEY_PREFIX
from qr_sampler.errors import ConfigError, shown
from qr_sampler_local.transformers.warpers import followed, refuse_warpers

__all__ = ["RowOptions"]


class RowOptions:
    """The options of the requests of a batch.

    Args:
        each: One mapping for each prompt, or one for all of them; keys with or without the prefix
            ``qr_``.
        common: Further options of all of them, which those of a prompt override.
        follow: Whether requests follow Transformers' sampling parameters if they do not say.

    Raises:
        ConfigError: When the options are no mappings.
    """

    def __init__(
        self,
        each: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
        common: Mapping[str, Any],
        *,
        follow: bool,
    ) -> None:
        self._common = _prefixed(common)
        self._each: list[dict[str, Any]] | None = None
        self._follow = follow
        if isinstance(each, Mapping):
            self._common = {**_prefixed(each), **self._common}
        elif each is not None:
            self._each = [_prefixed(own) for own in _checked(each)]

    @property
    def may_follow(self) -> bool:
        """Whether any of the requests follows Transformers' sampling parameters."""
        return any(_true(own.get(FOLLOW_KEY, self._follow)) for own in self._mappings())

    @property
    def may_leave(self) -> bool:
        """Whether any of the requests is left to Transformers."""
        return any(_is_left(own) for own in self._mappings())

    def of_rows(self, rows: int, per_prompt: int) -> list[dict[str, Any]]:
        """Returns the options of every row.

        Args:
            rows: Number of rows, which are *per_prompt* times that of prompts.
            per_prompt: How many rows in succession share a prompt (``num_return_sequences``).

        Raises:
            ConfigError: When there are not as many options as prompts.
        """
        if self._each is None:
            return [self._common] * rows
        prompts = rows // per_prompt
        if len(self._each) != prompts:
            raise ConfigError(
                f"options: {len(self._each)} mappings for {prompts} prompts; pass one for each "
                "prompt, or a single mapping for all of them"
            )
        return [{**self._common, **own} for own in self._each for _ in range(per_prompt)]

    def fields(
        self, rows: Sequence[Mapping[str, Any]], processors: Sequence[Any], config: Any
    ) -> EngineFields | None:
        """Returns Transformers' own sampling parameters if the rows follow them.

        Args:
            rows: Their options.
            processors: The logits processors of the call.
            config: Its complete ``GenerationConfig``.

        Raises:
            ConfigError: When the rows do not follow the parameters that there are, though they are
                not left to Transformers either; when some follow them and some do not; or when
                qr-sampler has no counterpart of one.
        """
        if self._follows(rows):
            return followed(processors, do_sample=bool(config.do_sample))
        if not all(map(_is_left, rows)):
            refuse_warpers(processors)
        return None

    def _mappings(self) -> list[dict[str, Any]]:
        return [{**self._common, **own} for own in self._each or [{}]]

    def _follows(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Returns whether the rows follow them: there is one set of parameters for a batch."""
        wishes = {_true(options.get(FOLLOW_KEY, self._follow)) for options in rows}
        if len(wishes) > 1:
            raise ConfigError(
                f"{FOLLOW_KEY}: some requests of a batch follow Transformers' sampling parameters "
                "and some do not; generate them in separate calls"
            )
        return wishes.pop() if wishes else False


def _is_left(options: Mapping[str, Any]) -> bool:
    return _true(options.get(BYPASS_KEY, False))


def _true(value: Any) -> bool:
    # Whatever else is no switch is refused with all other options.
    return str(value).lower() in ("1", "true")


def _checked(each: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    for own in each:
        if not isinstance(own, Mapping):
            raise ConfigError(
                f"options={shown(own)}: expected a mapping of options for each prompt, or a single "
                "one for all of them"
            )
    return each


def _prefixed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key if key.startswith(KEY_PREFIX) else KEY_PREFIX + key: value
        for key, value in options.items()
    }
