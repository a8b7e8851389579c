# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a request while it is in the batch."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qr_sampler import (
    DiscardRecord,
    RequestOptions,
    RunningMean,
    Settings,
    StepResult,
    TokenSamplingRecord,
    discard_record,
    resolve_request,
    token_record,
)
from qr_sampler.temperature import rounded

__all__ = ["ActiveRequest", "Choice"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A token that was forced for a request, until it is known whether it was emitted."""

    step: StepResult
    """The step that selected it."""
    index: int
    """Which of the step's decided rows it is."""
    position: int
    """Its index among the tokens generated for the request."""

    @property
    def token_id(self) -> int:
        """The forced token."""
        return int(self.step.selection.token_ids[self.index])


@dataclass(slots=True)
class ActiveRequest:
    """One request in the batch.

    All that is remembered lasts as long as this object. A request that vLLM preempts comes back as
    a new one, so its running entropy starts afresh, as it would for a request that continues the
    text.
    """

    options: RequestOptions
    """What it asked for."""
    stop_token_ids: frozenset[int]
    """Tokens that end it; without the end-of-text token if it asked to ignore that one."""
    request_key: str = ""
    """Names it in the records."""
    stopped: bool = field(default=False)
    """Whether a stop token has been emitted; what is sampled after it is thrown away."""
    running_entropy: RunningMean = field(init=False)
    """Mean of the recorded entropies of its emitted tokens, and of no others."""

    def __post_init__(self) -> None:
        self.running_entropy = RunningMean(self.options.parameters.varentropy_drift_rate)

    @classmethod
    def admit(cls, sampling_params: Any, settings: Settings) -> ActiveRequest:
        """Returns the state of a request that enters the batch.

        Args:
            sampling_params: vLLM's ``SamplingParams``, validated at admission.
            settings: The deployment's settings.
        """
        options = resolve_request(settings, sampling_params.extra_args)
        return cls(
            options=options,
            stop_token_ids=_stop_token_ids(sampling_params),
            request_key=options.request_key or uuid.uuid4().hex,
        )

    def emitted(self, choice: Choice) -> TokenSamplingRecord | DiscardRecord:
        """Returns the record of a token that vLLM took; a discard if the request had ended before.

        With asynchronous scheduling vLLM samples once more before it learns of a stop token.
        """
        if self.stopped:
            return self.wasted(choice, "after_stop")
        self.stopped = choice.token_id in self.stop_token_ids
        record = token_record(
            choice.step,
            choice.index,
            request_key=self.request_key,
            position=choice.position,
            options=self.options,
        )
        # What strategies saw, so that the mean is the same on every machine.
        (seen,) = rounded(np.array([record.entropy_nats]))
        self.running_entropy.observe(float(seen))
        return record

    def wasted(self, choice: Choice, reason: str) -> DiscardRecord:
        """Returns the record of a token that vLLM threw away."""
        return discard_record(
            choice.step,
            choice.index,
            request_key=self.request_key,
            position=choice.position,
            reason=reason,
        )


def _stop_token_ids(sampling_params: Any) -> frozenset[int]:
    """Returns the tokens on which vLLM's scheduler ends a request.

    Not ``all_stop_token_ids``: that set also holds an end-of-text token that is to be ignored.
    """
    stop_token_ids = set(sampling_params.stop_token_ids or ())
    if sampling_params.eos_token_id is not None:
        stop_token_ids.add(sampling_params.eos_token_id)
    return frozenset(stop_token_ids)
