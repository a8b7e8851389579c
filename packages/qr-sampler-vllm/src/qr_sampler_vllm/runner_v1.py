# SPDX-License-Identifier: Apache-2.0
"""Bookkeeping for Model Runner V1, which addresses requests by their row in the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qr_sampler import Record, Rows
from qr_sampler_vllm.engines import register
from qr_sampler_vllm.interfaces import BatchUpdateLike
from qr_sampler_vllm.requests import ActiveRequest, Choice
from qr_sampler_vllm.session import EngineSession

__all__ = ["BatchRow", "RunnerV1", "apply_update"]


@dataclass(slots=True)
class BatchRow:
    """The request in one row of the batch."""

    request: ActiveRequest
    """The request."""
    output_token_ids: list[int]
    """vLLM's own list of its tokens: grows when one is emitted. Under asynchronous scheduling the
    values are placeholders, so only the length is used."""
    choice: Choice | None = None
    """The token forced last, until the length of the list tells whether it was emitted."""

    def settle(self) -> Record | None:
        """Returns the record of the token forced last, if there is one to settle."""
        choice, self.choice = self.choice, None
        if choice is None:
            return None
        if len(self.output_token_ids) > choice.position:
            return self.request.emitted(choice)
        return self.request.wasted(choice, "not_emitted")


class RunnerV1:
    """The plugin as Model Runner V1 sees it.

    vLLM calls :meth:`update_state` once before each step and :meth:`apply` within it. A row whose
    prefill is unfinished looks like any other in :meth:`apply`; only the next step shows that its
    token was thrown away.
    """

    def __init__(self, vllm_config: Any) -> None:
        self._vllm_config = vllm_config
        register(vllm_config, self)
        self._session = EngineSession(vllm_config, "Model Runner V1")
        self._batch: dict[int, BatchRow] = {}
        self._rows = Rows([])
        self._lines: list[int] = []

    def update_state(self, update: BatchUpdateLike | None) -> None:
        """Settles the last step, then follows the changes of the batch."""
        self.flush()
        if update is None:
            return
        added = {
            index: BatchRow(ActiveRequest.admit(params, self._session.settings), output_token_ids)
            for index, params, _, output_token_ids in update.added
        }
        apply_update(self._batch, update, added)
        self._lines = sorted(self._batch)
        self._rows = Rows([self._batch[line].request.options.parameters for line in self._lines])

    def apply(self, logits: Any) -> Any:
        """Forces one token in every row of *logits*, in place, and returns it."""
        if not self._lines:
            return logits
        requests = [self._batch[line].request for line in self._lines]
        rows = self._rows.with_running_entropy(
            [request.running_entropy.value for request in requests]
        )
        step = self._session.sample(logits, self._lines, rows)
        if step is not None:
            for index, line in enumerate(step.plan.lines.tolist()):
                row = self._batch[self._lines[line]]
                row.choice = Choice(step, index, len(row.output_token_ids))
        return logits

    def flush(self) -> None:
        """Writes the records of the last step."""
        settled = [self._batch[line].settle() for line in self._lines]
        self._session.record(record for record in settled if record is not None)


def apply_update(
    batch: dict[int, BatchRow], update: BatchUpdateLike, added: dict[int, BatchRow]
) -> None:
    """Brings *batch* in line with vLLM's batch, in place: removed, added, moved.

    A row that is added to or moved onto replaces its occupant, which vLLM does not list as removed.

    Args:
        batch: Rows by index.
        update: vLLM's description of the changes.
        added: The new rows of the update.
    """
    for index in update.removed:
        batch.pop(index, None)
    batch.update(added)
    for origin, target, directionality in update.moved:
        moved, replaced = batch.pop(origin, None), batch.pop(target, None)
        if moved is not None:
            batch[target] = moved
        if replaced is not None and directionality.name == "SWAP":
            batch[origin] = replaced
    for index in [index for index in batch if index >= update.batch_size]:
        del batch[index]
