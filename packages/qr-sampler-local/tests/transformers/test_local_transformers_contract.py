# SPDX-License-Identifier: Apache-2.0
"""Transformers is a host like every other: it fulfils the contract of hosts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.testing import HostContract, HostDriver, HostRequest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

END_TOKEN = 0
IMPROBABLE = -40.0


@pytest.fixture(scope="module")
def hooked_model(tiny_dir: Path) -> Any:
    """The tiny model, whose end token is improbable."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    loaded = AutoModelForCausalLM.from_pretrained(tiny_dir)
    loaded.logits_times_ns = []

    def unlikely_end(_module: Any, _inputs: Any, output: Any) -> Any:
        output.logits[..., END_TOKEN] = IMPROBABLE
        loaded.logits_times_ns.append(time.monotonic_ns())
        return output

    loaded.register_forward_hook(unlikely_end)
    return loaded


class GeneratingDriver(HostDriver):
    """Has ``TransformersSampler.generate`` produce the texts of a batch."""

    def __init__(
        self, model: Any, settings: Settings, sources: Mapping[str, EntropySource]
    ) -> None:
        from qr_sampler_local.transformers import TransformersSampler

        self._model = model
        self._sampler = TransformersSampler(model, settings, sources=sources)
        model.logits_times_ns.clear()

    @property
    def logits_times_ns(self) -> Sequence[int]:
        times: list[int] = self._model.logits_times_ns
        return times

    def generate(
        self, requests: Sequence[HostRequest], on_token: Callable[[int, int], object]
    ) -> list[list[int]]:
        handed: list[list[int]] = [[] for _ in requests]

        def after_step(batch: Any) -> None:
            for row in batch.fresh_rows:
                batch.emitted(row)
                token = batch.sequences[row].tokens[-1]
                handed[row].append(token)
                on_token(row, token)
                if requests[row].abort_after == len(handed[row]):
                    batch.abort(row)

        ids, mask = padded([request.prompt_tokens for request in requests])
        output = self._sampler.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(request.max_tokens for request in requests),
            max_tokens=[request.max_tokens for request in requests],
            options=[request.options for request in requests],
            pad_token_id=END_TOKEN,
            after_step=after_step,
        )
        rows = output[:, ids.shape[1] :].tolist()
        for row, tokens in zip(rows, handed, strict=True):
            assert set(row[len(tokens) :]) <= {END_TOKEN}
        return [row[: len(tokens)] for row, tokens in zip(rows, handed, strict=True)]

    def close(self) -> None:
        self._sampler.close()


def padded(lengths: Sequence[int]) -> tuple[Any, Any]:
    """Returns prompts of certain lengths, padded on the left, and their mask."""
    longest = max(lengths)
    ids = [
        [END_TOKEN] * (longest - length) + [7 + row + column for column in range(length)]
        for row, length in enumerate(lengths)
    ]
    mask = [[0] * (longest - length) + [1] * length for length in lengths]
    return torch.tensor(ids), torch.tensor(mask)


class TestTransformers(HostContract):
    engine = "transformers "
    model: ClassVar[str] = Path(os.environ.get("QR_TINY_MODEL_DIR", "tiny")).name
    not_applicable: ClassVar[dict[str, str]] = {
        "test_what_is_thrown_away_has_a_discard": "its loop takes every token that is chosen"
    }

    @pytest.fixture
    def start(self, hooked_model: Any) -> Callable[..., HostDriver]:
        return partial(GeneratingDriver, hooked_model)
