# SPDX-License-Identifier: Apache-2.0
"""Bookkeeping for Model Runner V2, which addresses requests by a slot that is recycled."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qr_sampler import Record, Rows, StepResult
from qr_sampler_vllm.engines import register
from qr_sampler_vllm.interfaces import LogitsContextLike, RequestStatesLike
from qr_sampler_vllm.requests import ActiveRequest, Choice
from qr_sampler_vllm.session import EngineSession

__all__ = ["RunnerV2"]


class RunnerV2:
    """The plugin as Model Runner V2 sees it.

    Rows are reordered every step and a slot is taken over without notice. Whether a row's token
    will be emitted is known beforehand: its prefill is finished when the sequence is as long as
    what was fed. No entropy is spent on the others.
    """

    def __init__(self, vllm_config: Any, req_states: RequestStatesLike) -> None:
        self._vllm_config = vllm_config
        register(vllm_config, self)
        self._session = EngineSession(vllm_config, "Model Runner V2")
        self._states = req_states
        self._slots: list[ActiveRequest | None] = [None] * req_states.max_num_reqs

    def add_request(self, slot: int, sampling_params: Any) -> bool:
        """Takes *slot* for a new request and returns whether its logits will be modified."""
        if _is_warmup(sampling_params):
            self._slots[slot] = None
            return False
        self._slots[slot] = ActiveRequest.admit(sampling_params, self._session.settings)
        return True

    def apply(self, logits: Any, context: LogitsContextLike) -> Any:
        """Forces one token in every row of *logits* that emits one, in place, and returns it."""
        slots = context.idx_mapping_np
        lengths = context.seq_lens_upper_bound_np[: len(slots)]
        finished = lengths >= self._states.prefill_len.np[slots]
        requests = {
            line: request
            for line, slot in enumerate(slots.tolist())
            if finished[line] and (request := self._slots[slot]) is not None
        }
        if not requests:
            return logits
        rows = Rows(
            [request.options.parameters for request in requests.values()],
            [request.running_entropy.value for request in requests.values()],
        )
        step = self._session.sample(logits, list(requests), rows)
        if step is not None:
            positions = lengths - self._states.prompt_len.np[slots]
            self._session.record(_records(step, requests, positions.tolist()))
        return logits

    def flush(self) -> None:
        """Does nothing: records are written within the step."""


def _records(
    step: StepResult, requests: dict[int, ActiveRequest], positions: list[int]
) -> list[Record]:
    lines = list(requests)
    records: list[Record] = []
    for index, decided in enumerate(step.plan.lines.tolist()):
        line = lines[decided]
        records.append(requests[line].emitted(Choice(step, index, positions[line])))
    return records


def _is_warmup(sampling_params: Any) -> bool:
    """Whether a request is one that vLLM warms its kernels up with, on made-up logits."""
    warmup = _warmup_params()
    return warmup is not None and bool(sampling_params == warmup)


@lru_cache(maxsize=1)
def _warmup_params() -> Any:
    from vllm import SamplingParams

    make = getattr(SamplingParams, "for_sampler_warmup", None)
    return make() if make is not None else None
