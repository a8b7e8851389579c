# SPDX-License-Identifier: Apache-2.0
"""Drafts under Model Runner V2, in the place of vLLM's own n-gram speculator.

vLLM's V2 takes no drafter of another package (``custom_class`` is among its unsupported methods,
``VllmConfig._get_v2_model_runner_unsupported_features``). It does build a speculator of its own for
``ngram``, with the interface that all of them have, and the worker replaces that. What is drafted
is verified by the logits processor, as drafts of vLLM are: each row is forced to the token that
the entropy source chooses for it, so that a draft stands exactly if it is that token.

Every rank of a tensor-parallel group drafts by itself: tokens, requests and proposer are the same
on all of them, and no random number is involved.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from vllm.v1.worker.gpu.spec_decode.speculator import BaseSpeculator

from qr_sampler import ConfigError, Settings
from qr_sampler_vllm.requests.admission import resolve
from qr_sampler_vllm.tsd.drafter import load
from qr_sampler_vllm.tsd.proposer_states import ProposerStates
from qr_sampler_vllm.tsd.request_shapes import RequestShapes, shapes_of
from qr_sampler_vllm.tsd.settings import TSDSettings
from qr_sampler_vllm.tsd.verification.exact_match import likeliest

__all__ = ["TSDSpeculator"]


class _Request(NamedTuple):
    """What is drafted for."""

    shapes: RequestShapes
    """What is known of its distributions."""
    max_tokens: int
    """Most tokens that it generates."""


class TSDSpeculator(BaseSpeculator):  # type: ignore[misc]
    """Drafts the most probable tokens of a proposer.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        device: Where drafts are expected.
        req_states: vLLM's ``RequestState``.

    Raises:
        ConfigError: When there is no proposer for the model.
    """

    supports_mm_inputs = False
    draft_logits = None

    def __init__(self, vllm_config: Any, device: Any, req_states: Any) -> None:
        vocab_size = int(vllm_config.model_config.get_vocab_size())
        self._states = ProposerStates(load(TSDSettings.load(), vocab_size))
        self._settings = Settings.load()
        self._tokens = req_states
        self._length = int(vllm_config.speculative_config.num_speculative_tokens)
        rows = vllm_config.scheduler_config.max_num_seqs
        self._drafts = torch.zeros((rows, self._length), dtype=torch.int64, device=device)
        self._requests: dict[str, _Request | None] = {}

    def init_cudagraph_manager(self, cudagraph_mode: Any) -> None:
        """Does nothing: no model is run."""

    def capture(self) -> None:
        """Does nothing: no model is run."""

    def follow(self, scheduler_output: Any) -> None:
        """Learns which requests come and go with a step.

        Args:
            scheduler_output: vLLM's ``SchedulerOutput``.
        """
        fresh = {each.req_id: each.sampling_params for each in scheduler_output.scheduled_new_reqs}
        for name in scheduler_output.finished_req_ids:
            self._requests.pop(name, None)
        # One that was preempted comes back as a new one.
        self._states.forget([*scheduler_output.finished_req_ids, *fresh])
        self._requests.update({name: self._admitted(params) for name, params in fresh.items()})

    def propose(
        self,
        input_batch: Any,
        attn_metadata: Any,
        slot_mappings: Any,
        last_hidden_states: Any,
        aux_hidden_states: Any,
        num_sampled: Any,
        *_: Any,
        dummy_run: bool = False,
        **__: Any,
    ) -> Any:
        """Returns the drafts of every row of the batch, int64 of shape ``(B, L)``.

        Rows that nothing is drafted for repeat their last token, as those of vLLM's n-gram do; it
        is verified like any draft.
        """
        count = input_batch.num_reqs
        if dummy_run or not count:
            return self._drafts[:count]
        slots = input_batch.idx_mapping_np[:count].tolist()
        lengths = self._tokens.total_len.gpu[slots].tolist()
        emitted = num_sampled[:count].tolist()
        rows = [
            self._drafted(*row) if new else [0] * self._length
            for *row, new in zip(input_batch.req_ids[:count], slots, lengths, emitted, strict=True)
        ]
        self._drafts[:count] = torch.tensor(rows, dtype=torch.int64)
        return self._drafts[:count]

    def _drafted(self, name: str, slot: int, length: int) -> list[int]:
        """Returns the drafts of a request, padded with its last token."""
        request, last = self._requests.get(name), self._read(slot, length, length - 1)
        if request is None:
            return last * self._length
        state = self._states.after(name, length, partial(self._read, slot, length))
        position = length - int(self._tokens.prompt_len.np[slot])
        most = min(self._length, request.max_tokens - position - 1)
        drafts = likeliest(self._states.proposer, state, request.shapes, position, most)
        return drafts + last * (self._length - len(drafts))

    def _read(self, slot: int, length: int, begin: int) -> list[int]:
        """Returns the tokens of a slot from *begin* on."""
        tokens: list[int] = self._tokens.all_token_ids.gpu[slot, begin:length].tolist()
        return tokens

    def _admitted(self, sampling_params: Any) -> _Request | None:
        """Returns what is drafted for; ``None`` for requests whose tokens are left to vLLM."""
        if sampling_params is None:
            return None
        try:
            options = resolve(self._settings, sampling_params)
        except ConfigError:
            # Admission reports it and ends the request.
            return None
        if options.left_to_engine:
            return None
        shapes = shapes_of(options.parameters, sampling_params)
        return _Request(shapes, int(sampling_params.max_tokens or 0))
