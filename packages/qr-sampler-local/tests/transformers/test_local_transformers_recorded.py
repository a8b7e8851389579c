# SPDX-License-Identifier: Apache-2.0
"""The same logits and bytes give the same tokens and records as on all other hosts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.testing.hosts.recorded_logits import PlayedBytes, Recording, check_recorded

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


class Playing:
    """Has Transformers generate from recorded logits.

    Args:
        model: The model, whose logits are replaced.
        batch: Number of rows of a batch.
        route: How the tokens are chosen.
    """

    def __init__(self, model: Any, batch: int, route: str) -> None:
        self._model = model
        self._batch = batch
        self._route = route

    def __call__(
        self, recording: Recording, settings: Settings, source: PlayedBytes
    ) -> Sequence[Sequence[int]]:
        from qr_sampler_local.transformers import TransformersSampler

        texts: list[list[int]] = []
        with TransformersSampler(self._model, settings, sources=[source]) as sampler:
            for first in range(0, recording.rows, self._batch):
                rows = slice(first, first + self._batch)
                steps = iter(recording.logits[:, rows])

                def replace(_module: Any, _inputs: Any, output: Any, steps: Any = steps) -> Any:
                    output.logits = torch.tensor(next(steps))[:, None]
                    return output

                hook = self._model.register_forward_hook(replace)
                try:
                    texts += self._generate(sampler, recording.options[rows], recording.steps)
                finally:
                    hook.remove()
        return texts

    def _generate(self, sampler: Any, options: Sequence[Any], steps: int) -> list[list[int]]:
        ids = torch.full((len(options), 2), 5)
        arguments = {
            "attention_mask": torch.ones_like(ids),
            "max_new_tokens": steps,
            "pad_token_id": 0,
        }
        if self._route == "generate":
            output = sampler.generate(ids, options=options, **arguments)
        else:
            processors = [sampler.processor(options)]
            output = self._model.generate(ids, logits_processor=processors, **arguments)
        rows: list[list[int]] = output[:, 2:].tolist()
        return rows


@pytest.mark.parametrize(("batch", "route"), [(9, "generate"), (54, "logits_processor")])
def test_recorded_logits(model: Any, tmp_path: Path, batch: int, route: str) -> None:
    check_recorded(Playing(model, batch, route), tmp_path)
