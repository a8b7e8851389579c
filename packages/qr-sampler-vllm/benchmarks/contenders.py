# SPDX-License-Identifier: Apache-2.0
"""What is compared: the plugin's step, vLLM's sampler, and yardsticks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler

from benchmarks.sources import SAMPLE_COUNT
from benchmarks.timing import Contender
from qr_sampler import EntropySource, Rows, SamplingPipeline, Settings, StepResult
from qr_sampler.selection import Selector
from qr_sampler.selection.fast.passes import NOTHING, MeasuredMoments, RowPasses
from qr_sampler.selection.statistics import Moments
from qr_sampler.settings import SamplingParameters
from qr_sampler_accel import TensorLogits, block_counts

__all__ = [
    "EDT",
    "FILTERS",
    "FIXED_07",
    "FIXED_1",
    "BarePasses",
    "Batch",
    "PluginStep",
    "Step",
    "VLLMSampler",
    "memory_floor",
    "naive_numpy",
]

FILTERS: Final[dict[str, Any]] = {"top_k": 50, "top_p": 0.9}

PLAIN: Final = SamplingParameters.model_validate({"sample_count": SAMPLE_COUNT})
FIXED_1: Final = PLAIN.model_copy(update={"fixed_temperature": 1.0})
FIXED_07: Final = PLAIN.model_copy(update={"fixed_temperature": 0.7})
EDT: Final = PLAIN.model_copy(update={"temperature_strategy": "edt"})

NAIVE_U: Final = 0.7
"""The number that the naive selection is given; its cost does not depend on it."""

Step = Callable[[Any], object]
"""Takes logits of shape ``(B, V)``, which it may overwrite."""


class Batch:
    """Gives every iteration fresh logits, since steps overwrite them.

    Args:
        rows: Tensor of shape ``(N, V)``; N is a multiple of *size*.
        size: Rows per step B.
    """

    def __init__(self, rows: Any, size: int) -> None:
        self._rows = rows
        self.size = size
        self.logits = torch.empty_like(rows[:size])

    def refresh(self, iteration: int) -> None:
        """Copies the rows of an iteration into :attr:`logits`."""
        start = iteration * self.size % len(self._rows)
        self.logits.copy_(self._rows[start : start + self.size])

    def contender(self, name: str, step: Step, *, after: Step | None = None) -> Contender:
        """Returns *step* on fresh logits, which *after*, where given, has worked on untimed."""

        def prepare(iteration: int) -> None:
            self.refresh(iteration)
            if after is not None:
                after(self.logits)

        return Contender(name, prepare, lambda: step(self.logits))


class PluginStep:
    """What the plugin does to the logits in one engine step.

    Statistics, temperature, one draw, amplification, selection and forcing, by the function that
    the logits processor itself calls, with the selector that it would use unless told otherwise.
    """

    def __init__(
        self,
        parameters: SamplingParameters,
        batch: int,
        source: EntropySource,
        selector: Selector[Any, Any] | None = None,
    ) -> None:
        # Without validation, which would read the environment.
        self._settings = Settings.model_construct()
        self._source, self._selector = source, selector
        self._access = TensorLogits()
        self._pipeline: SamplingPipeline | None = None
        self._rows = Rows([parameters] * batch)
        self._lines: Sequence[int] = range(batch)

    def __call__(self, logits: Any) -> StepResult:
        """Forces a token in every row.

        Raises:
            ValueError: When no row can be decided.
        """
        if self._pipeline is None:
            self._pipeline = self._made_for(logits)
        result = self._access.sample(self._pipeline, logits, self._lines, self._rows)
        if result is None:
            raise ValueError("the benchmark's logits have no finite maximum")
        return result

    def _made_for(self, logits: Any) -> SamplingPipeline:
        if self._selector is None:
            return self._access.pipeline(logits, self._settings, self._source)
        return SamplingPipeline(self._settings, self._source, self._selector, block_counts())


class BarePasses(RowPasses):
    """NumPy's passes without entropy and varentropy, which vLLM's sampler does not compute either.

    The plugin never runs without them: they are in every record.
    """

    def moments(self, logits: NDArray[np.float32], maximum: np.float32) -> MeasuredMoments:
        """Returns the weight, and nothing else that is true."""
        weight = self._weight(self._distances(logits, maximum, NOTHING))
        return MeasuredMoments(Moments(0.0, 0.0), 0.0, 0.0, weight)


class VLLMSampler:
    """vLLM's own sampler at temperature 1, with the metadata that it would keep between steps."""

    def __init__(
        self,
        batch: int,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        device: str = "cpu",
    ) -> None:
        def filled(value: float | None, dtype: torch.dtype) -> Any:
            return (
                None if value is None else torch.full((batch,), value, dtype=dtype, device=device)
            )

        self._sampler = Sampler()
        self._metadata = SamplingMetadata(
            temperature=filled(1.0, torch.float32),
            all_greedy=False,
            all_random=True,
            top_p=filled(top_p, torch.float32),
            top_k=filled(top_k, torch.int32),
            generators={},
            max_num_logprobs=None,
            no_penalties=True,
            prompt_token_ids=None,
            frequency_penalties=filled(0.0, torch.float32),
            presence_penalties=filled(0.0, torch.float32),
            repetition_penalties=filled(1.0, torch.float32),
            output_token_ids=[[] for _ in range(batch)],
            allowed_token_ids_mask=None,
            bad_words_token_ids={},
            logitsprocs=LogitsProcessors(),
        )

    def __call__(self, logits: Any) -> object:
        """Samples a token of every row."""
        return self._sampler(logits, self._metadata)


def naive_numpy(logits: Any) -> None:
    """The usual way to select by a given number: float32 softmax, argsort, cumsum, searchsorted.

    Its float32 totals are off by more than the probability of most tokens; it is here for its cost.
    """
    for row in logits.numpy():
        weights = np.exp(row - row.max())
        probabilities = weights / weights.sum()
        order = np.argsort(probabilities)[::-1]
        rank = np.searchsorted(np.cumsum(probabilities[order]), NAIVE_U)
        row.fill(-np.inf)
        row[order[min(rank, row.size - 1)]] = 0.0


def memory_floor(logits: Any) -> None:
    """Reads each row for its maximum, takes one exponential of it and overwrites it."""
    scratch = torch.empty_like(logits[0])
    for row in logits:
        row.max()
        torch.exp(row, out=scratch)
        row.fill_(-torch.inf)
        row[0] = 0.0
