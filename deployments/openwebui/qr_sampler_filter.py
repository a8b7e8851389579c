"""
title: qr-sampler
author: The qr-sampler authors
description: Lets a chat choose how vLLM with qr-sampler draws its tokens, and names its records.
version: 0.1.0
license: Apache-2.0
"""

# SPDX-License-Identifier: Apache-2.0
# Open WebUI reads the lines above from the head of the file, so the licence comes second here.

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, field_validator

__all__ = ["Filter", "Sampling"]

KEY_PREFIX: Final = "qr_"
"""What qr-sampler's keys begin with in ``vllm_xargs``."""

EXTRA_FIELD: Final = "vllm_xargs"
"""The field of a request that vLLM hands to its plugins."""

Choice = Literal["yes", "no"]
Temperature = Annotated[float, Field(ge=0.001, le=1000.0)]
Exponent = Annotated[float, Field(ge=0.0, le=100.0)]
Weight = Annotated[float, Field(ge=-100.0, le=100.0)]
Label = Annotated[str, Field(min_length=1, max_length=256)]


def _menu(*options: str) -> dict[str, Any]:
    """Returns what makes Open WebUI show a drop-down menu; it looks for it beside the type."""
    return {"enum": list(options)}


class Sampling(BaseModel):
    """One field per key that a request may carry; what is unset is left to the deployment."""

    temperature_strategy: str | None = Field(
        None,
        description="Strategy that chooses the temperature of a token.",
        json_schema_extra=_menu("fixed", "edt", "edt_paper", "dynatemp", "varentropy"),
    )
    fixed_temperature: Temperature | None = Field(
        None, description="Temperature of the 'fixed' strategy."
    )
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = Field(
        None, description="Keep the k most probable tokens; 0 keeps all, 1 is greedy."
    )
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="Keep the fewest most probable tokens that reach this probability."
    )
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None, description="Keep tokens at least this fraction as probable as the first."
    )
    top_n_sigma: Annotated[float, Field(ge=0.0, le=1e6)] | None = Field(
        None, description="Keep logits within so many standard deviations of the largest."
    )
    typical_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="Keep the fewest tokens of typical surprise that reach this probability."
    )
    truncate_first: Choice | None = Field(
        None,
        description="Whether the filters act before temperature.",
        json_schema_extra=_menu("yes", "no"),
    )

    sample_count: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Bytes drawn from the source for one token."
    )
    signal_amplifier_type: str | None = Field(
        None,
        description="Amplifier that turns a block of bytes into one uniform number.",
        json_schema_extra=_menu(
            "zscore_mean",
            "bit_zscore",
            "exact_sum",
            "exact_bits",
            "random_walk",
            "ecdf",
            "uniform53",
            "server",
        ),
    )
    entropy_source: str | None = Field(
        None, description="Source of the bytes, one of those that the operator has declared."
    )
    follow_request: Choice | None = Field(
        None,
        description="Whether temperature, top_p, top_k and min_p of the chat's own controls count.",
        json_schema_extra=_menu("yes", "no"),
    )
    bypass: Choice | None = Field(
        None,
        description="Whether vLLM samples by itself: then nothing is drawn or recorded.",
        json_schema_extra=_menu("yes", "no"),
    )

    request_key: Label | None = Field(
        None, description="Name in the records; that of chat and message if unset."
    )
    trial: Label | None = Field(None, description="Label of the trial in the records.")
    condition: Label | None = Field(None, description="Label of the condition in the records.")

    edt_base_temp: Temperature | None = Field(
        None, description="'edt': temperature at maximal entropy."
    )
    edt_exponent: Exponent | None = Field(
        None, description="'edt': power of the normalised entropy."
    )
    edt_min_temp: Temperature | None = Field(
        None, description="'edt' and 'edt_paper': lowest temperature."
    )
    edt_max_temp: Temperature | None = Field(
        None, description="'edt' and 'edt_paper': highest temperature."
    )
    edt_paper_base_temp: Temperature | None = Field(
        None, description="'edt_paper': temperature T0 of undecided tokens."
    )
    edt_paper_n: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="'edt_paper': base N."
    )
    edt_paper_theta: Exponent | None = Field(
        None, description="'edt_paper': exponent theta, in nats."
    )
    dynatemp_min_temp: Temperature | None = Field(
        None, description="'dynatemp': temperature at zero entropy."
    )
    dynatemp_max_temp: Temperature | None = Field(
        None, description="'dynatemp': temperature at maximal entropy."
    )
    dynatemp_exponent: Exponent | None = Field(
        None, description="'dynatemp': power of the normalised entropy."
    )
    varentropy_base_temp: Temperature | None = Field(
        None, description="'varentropy': temperature where all its terms vanish."
    )
    varentropy_entropy_weight: Weight | None = Field(
        None, description="'varentropy': added per nat of entropy."
    )
    varentropy_variance_weight: Weight | None = Field(
        None, description="'varentropy': added per square nat of varentropy."
    )
    varentropy_drift_weight: Weight | None = Field(
        None, description="'varentropy': added per nat of drift of the entropy."
    )
    varentropy_drift_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="'varentropy': weight of the newest token in the running mean."
    )
    varentropy_min_temp: Temperature | None = Field(
        None, description="'varentropy': lowest temperature."
    )
    varentropy_max_temp: Temperature | None = Field(
        None, description="'varentropy': highest temperature."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        """Takes the empty text of a control that was opened and not filled in for unset."""
        return None if value == "" else value

    def keys(self) -> dict[str, str | int | float]:
        """Returns the request keys for what is set here.

        vLLM takes texts and numbers only, so a choice becomes 1 or 0.
        """
        wishes = self.model_dump(exclude_none=True, include=set(Sampling.model_fields))
        numbers = {"yes": 1, "no": 0}
        return {
            KEY_PREFIX + name: numbers[value] if name in CHOICES else value
            for name, value in wishes.items()
        }


def _is_ours(key: object) -> bool:
    """Whether *key* is one of qr-sampler's, however it is written."""
    return str(key).strip().lower().startswith(KEY_PREFIX.rstrip("_"))


CHOICES: Final = frozenset({"truncate_first", "follow_request", "bypass"})
"""Fields that are answered with yes or no."""


class Filter:
    """Adds qr-sampler's keys to each request on its way from Open WebUI to vLLM."""

    class Valves(Sampling):
        """What the administrator sets for everybody."""

        priority: int = Field(0, description="Filters of a lower number act earlier.")
        name_requests: bool = Field(
            True, description="Name each request in the records after its chat and message."
        )
        users_may_change: bool = Field(
            True,
            description="Whether a user's own values count, those of a custom parameter included.",
        )

    class UserValves(Sampling):
        """What a user sets for their own chats."""

    def __init__(self) -> None:
        self.valves = self.Valves.model_validate({})

    async def inlet(
        self,
        body: dict[str, Any],
        __user__: Mapping[str, Any] | None = None,
        __metadata__: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns *body* with ``vllm_xargs``.

        Keys that the request carries there already override the others, unless users may change
        nothing: then they are removed.

        Args:
            body: The chat completion as it will be sent to vLLM. Changed in place.
            __user__: The user; ``valves`` holds their own values.
            __metadata__: Where the request comes from; ``chat_id`` and ``message_id`` name it.

        Raises:
            ValueError: When the request has a ``vllm_xargs`` that is no object.
        """
        keys = {
            **self._name(__metadata__ or {}),
            **self.valves.keys(),
            **self._wishes(__user__ or {}),
            **self._given(body),
        }
        # Later, Open WebUI adds a model's custom parameters only where the body has no such field,
        # and models can be users' own: an empty object keeps them out.
        if keys or not self.valves.users_may_change:
            body[EXTRA_FIELD] = keys
        return body

    def _given(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the keys that the request carries and may carry."""
        given = body.get(EXTRA_FIELD) or {}
        if not isinstance(given, Mapping):
            raise ValueError(
                f"{EXTRA_FIELD}={given!r}: expected an object such as "
                '{"qr_top_k": 50}; correct the custom parameter of the chat or the model'
            )
        if self.valves.users_may_change:
            return dict(given)
        return {key: value for key, value in given.items() if not _is_ours(key)}

    def _name(self, metadata: Mapping[str, Any]) -> dict[str, str]:
        """Returns the key that tells chat and message; a request without a chat has none."""
        chat = metadata.get("chat_id")
        if not (self.valves.name_requests and chat):
            return {}
        return {"qr_request_key": "/".join(filter(None, (chat, metadata.get("message_id"))))}

    def _wishes(self, user: Mapping[str, Any]) -> dict[str, str | int | float]:
        valves = user.get("valves")
        if not self.valves.users_may_change or not isinstance(valves, Sampling):
            return {}
        return valves.keys()
