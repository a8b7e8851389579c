# SPDX-License-Identifier: Apache-2.0
"""vLLM's two logits-processor interfaces, where the installed version has them.

Model Runner V1 constructs a processor with ``(vllm_config, device, is_pin_memory)``, Model Runner
V2 with ``(vllm_config, req_states)``. Both load the same entry point, and each insists on its own
base class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

__all__ = [
    "BatchUpdateLike",
    "LogitsContextLike",
    "RequestStatesLike",
    "V1Interface",
    "V2Interface",
]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class BatchUpdateLike(Protocol):
    """The part of vLLM's ``BatchUpdate`` that is read (Model Runner V1)."""

    @property
    def batch_size(self) -> int:
        """Number of requests in the batch after the update."""

    @property
    def removed(self) -> Sequence[int]:
        """Row indices whose requests have left."""

    @property
    def added(self) -> Sequence[tuple[int, Any, list[int] | None, list[int]]]:
        """``(row, sampling_params, prompt_token_ids, output_token_ids)`` of new requests."""

    @property
    def moved(self) -> Sequence[tuple[int, int, Any]]:
        """``(from_row, to_row, directionality)``, in order of occurrence."""


class _HostTensor(Protocol):
    @property
    def np(self) -> NDArray[Any]:
        """The host side of the buffer."""


class _DeviceTensor(Protocol):
    @property
    def gpu(self) -> Any:
        """The device side of the buffer."""


class RequestStatesLike(Protocol):
    """The part of vLLM's ``LogitsProcRequestState`` that is read (Model Runner V2)."""

    @property
    def max_num_reqs(self) -> int:
        """Number of request slots."""

    @property
    def prompt_len(self) -> _HostTensor:
        """Per slot, number of tokens in the client's prompt."""

    @property
    def prefill_len(self) -> _HostTensor:
        """Per slot, number of tokens fed at the latest prefill."""

    @property
    def all_token_ids(self) -> _DeviceTensor:
        """Per slot, the tokens of the sequence, prompt included."""


class LogitsContextLike(Protocol):
    """The part of vLLM's ``LogitsContext`` that is read (Model Runner V2)."""

    @property
    def idx_mapping_np(self) -> NDArray[Any]:
        """Request to slot; without drafts that is row to slot."""

    @property
    def seq_lens_upper_bound_np(self) -> NDArray[Any]:
        """Per request, number of tokens visible to the sampled one; with drafts an upper bound."""

    @property
    def expanded_idx_mapping(self) -> Any:
        """Row to slot, on the device."""

    @property
    def expanded_local_pos(self) -> Any:
        """Per row, its place among the rows of its request, on the device."""

    @property
    def pos(self) -> Any:
        """Per row, position of its input token in the sequence, on the device."""

    @property
    def input_ids(self) -> Any:
        """Per row, its input token, on the device; negative in a slot that holds no draft."""


class _AbsentV1:
    """Stands in for the interface of Model Runner V1 where vLLM has none."""


class _AbsentV2:
    """Stands in for the interface of Model Runner V2 where vLLM has none."""


if TYPE_CHECKING:
    V1Interface = _AbsentV1
    V2Interface = _AbsentV2
else:
    try:
        from vllm.v1.sample.logits_processor import LogitsProcessor as V1Interface
    except ImportError:
        V1Interface = _AbsentV1
    try:
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2Interface
    except ImportError:
        V2Interface = _AbsentV2
