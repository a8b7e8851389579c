# SPDX-License-Identifier: Apache-2.0
"""The same logits and the same bytes have to give the same tokens and records on every host.

:func:`check_recorded` plays a recording to a host and compares what it makes of it with what the
reference selector makes of it, in a session of the core that reads NumPy arrays.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qr_sampler.entropy.draw import DroppedBytes, EntropyDraw, JitClass
from qr_sampler.entropy.row_context import RowContext
from qr_sampler.entropy.source import EntropySource
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler.host import EngineFacts, NumpyLogits, SamplingSession, StepRows, StopConditions
from qr_sampler.sampling.pipeline import SamplingPipeline
from qr_sampler.selection import ReferenceSelector
from qr_sampler.settings import Settings
from qr_sampler.temperature import STATISTICS_STEP
from qr_sampler.testing.ledger_checks import records_in

__all__ = ["PlayedBytes", "Recording", "check_recorded", "recording_of"]

FILTERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "nothing": {},
    "top_k": {"qr_top_k": 7},
    "top_p": {"qr_top_p": 0.8},
    "min_p": {"qr_min_p": 0.05},
    "typical_p": {"qr_typical_p": 0.7},
    "top_n_sigma": {"qr_top_n_sigma": 1.5},
    "all": {"qr_top_k": 200, "qr_min_p": 0.001, "qr_top_p": 0.95, "qr_typical_p": 0.9},
    "first": {"qr_truncate_first": 1, "qr_top_k": 60, "qr_top_p": 0.9},
    "greedy": {"qr_top_k": 1},
}
"""What truncates the distribution, by name."""

TEMPERATURES: Final[Mapping[str, Mapping[str, Any]]] = {
    "cold": {"qr_fixed_temperature": 0.3},
    "hot": {"qr_fixed_temperature": 1.7},
    "edt": {"qr_temperature_strategy": "edt"},
    "edt_paper": {"qr_temperature_strategy": "edt_paper"},
    "dynatemp": {"qr_temperature_strategy": "dynatemp"},
    "varentropy": {"qr_temperature_strategy": "varentropy", "qr_varentropy_drift_weight": 0.2},
}
"""What chooses the temperature, by name."""

_EQUAL: Final = (
    "token_id",
    "u",
    "statistic",
    "lattice_step",
    "temperature",
    "rank",
    "candidates",
    "amplifier",
    "temperature_strategy",
    "source",
    "fallback",
    "block_bytes",
    "block_sum",
    "block_ones",
    "emitted",
)
"""Fields of the record of a token that may not differ at all."""

_CLOSE: Final[Mapping[str, tuple[float, float]]] = {
    "probability": (1e-5, 0.0),
    "entropy_nats": (0.0, STATISTICS_STEP),
    "varentropy_nats2": (0.0, STATISTICS_STEP),
    "running_entropy_nats": (0.0, STATISTICS_STEP),
}
"""Relative and absolute tolerance of the others: selectors may round them, see
:class:`~qr_sampler.SelectionResult` and :class:`~qr_sampler.Measurement`."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Logits that a model has computed for several texts."""

    logits: NDArray[np.float32]
    """Shape ``(N, R, V)``: of N steps and R texts. Token 0 is masked everywhere, so that it can be
    the one that ends a text, and none does."""
    options: tuple[Mapping[str, Any], ...]
    """The ``qr_*`` keys of each text."""

    @property
    def steps(self) -> int:
        """Number of tokens N of each text."""
        return len(self.logits)

    @property
    def rows(self) -> int:
        """Number of texts R."""
        return len(self.options)


class PlayedBytes(EntropySource):
    """Always has the same bytes for the same token of the same text, however rows are batched."""

    name = "played"
    jit_class = JitClass.PSEUDO
    blocks = False
    serves_rows = True
    conditioning = "chosen"
    min_entropy_per_byte = 0.0

    def draw_rows(self, contexts: Sequence[RowContext], sizes: Sequence[int]) -> EntropyDraw:
        """Returns the SHAKE-128 of the request's key and the position, as long as it has to be."""
        requested_ns = time.monotonic_ns()
        blocks = [
            hashlib.shake_128(f"{row.request_key}/{row.position}".encode()).digest(size)
            for row, size in zip(contexts, sizes, strict=True)
        ]
        return EntropyDraw(
            data=b"".join(blocks),
            source=self.name,
            requested_ns=requested_ns,
            received_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
        )

    def get_random_bytes(self, n: int) -> bytes:
        """Refuses: it has bytes for certain rows only."""
        raise EntropyUnavailableError(self.name, "its bytes belong to certain rows")


def recording_of(vocab_size: int = 2048, steps: int = 4, *, seed: int = 20) -> Recording:
    """Returns a recording with a text for every filter under every temperature strategy.

    Args:
        vocab_size: Number of columns V, at least 64.
        steps: Number of steps N.
        seed: Of the logits.
    """
    names = list(product(FILTERS, TEMPERATURES))
    random = np.random.default_rng(seed)
    logits = random.normal(size=(steps, len(names), vocab_size)).astype(np.float32)
    # Peaked rows and flat ones, ties, and masked tokens.
    logits *= random.uniform(0.1, 5.0, size=(steps, len(names), 1)).astype(np.float32)
    logits[:, ::4] = np.round(logits[:, ::4] * 2) / 2
    logits[:, ::3, vocab_size // 2 :] = -math.inf
    logits[..., 0] = -math.inf
    options = tuple(
        {
            "qr_request_key": f"{name} {temperature}",
            "qr_sample_count": 64,
            **FILTERS[name],
            **TEMPERATURES[temperature],
        }
        for name, temperature in names
    )
    return Recording(logits, options)


def check_recorded(
    play: Callable[[Recording, Settings, PlayedBytes], Sequence[Sequence[int]]],
    folder: Path,
    recording: Recording | None = None,
) -> None:
    """Compares the tokens and records of a host with those of the reference.

    Args:
        play: Generates the texts of a recording with the settings and the source that it is given,
            in batches of any size, and returns their tokens once its ledger is closed.
        folder: An empty directory for both ledgers.
        recording: What is played; :func:`recording_of` makes it if it is not given.

    Raises:
        AssertionError: Naming the text, the position and what is different.
    """
    recording = recording_of() if recording is None else recording
    settings = Settings.load(
        entropy_source_type=PlayedBytes.name,
        fallback_mode="error",
        max_ks_distance=1.0,
        ledger_dir=folder / "host",
    )
    tokens = play(recording, settings, PlayedBytes())
    expected = _reference(recording, settings.model_copy(update={"ledger_dir": folder / "core"}))
    found = _by_token(folder / "host")
    assert found.keys() == expected.keys(), f"records of {found.keys() ^ expected.keys()}"
    for own, options in zip(tokens, recording.options, strict=True):
        key = options["qr_request_key"]
        ids = [expected[key, position]["token_id"] for position in range(recording.steps)]
        assert list(own) == ids, f"{key}: tokens {own}, expected {ids}"
    for place, record in expected.items():
        differences = list(_differences(found[place], record))
        assert not differences, f"{place}: {differences}"


class _ReferenceLogits(NumpyLogits):
    """Selects with the specification."""

    def pipeline(
        self,
        logits: Any,
        settings: Settings,
        source: EntropySource,
        on_dropped: Callable[[DroppedBytes], object],
    ) -> SamplingPipeline:
        return SamplingPipeline(settings, source, ReferenceSelector(), on_dropped=on_dropped)


def _reference(recording: Recording, settings: Settings) -> dict[tuple[str, int], dict[str, Any]]:
    """Returns the records of the reference by request key and position."""
    session = SamplingSession(
        EngineFacts(engine="reference", model="recording"),
        settings,
        access=_ReferenceLogits(),
        sources={PlayedBytes.name: PlayedBytes()},
    )
    sequences = []
    for options in recording.options:
        sequence = session.begin(options, StopConditions(max_tokens=recording.steps))
        assert sequence is not None
        sequences.append(sequence)
    lines = list(range(recording.rows))
    for position, logits in enumerate(recording.logits):
        step = StepRows(lines, sequences, [position] * recording.rows)
        outcomes = session.decide(logits.copy(), step)
        for sequence, outcome in zip(sequences, outcomes, strict=True):
            session.record(sequence.sampled(outcome) + sequence.confirm())
    session.close()
    assert settings.ledger_dir is not None
    return _by_token(settings.ledger_dir)


def _by_token(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Returns the records of tokens by request key and position."""
    tokens = [line for line in records_in(folder) if line["kind"] == "token"]
    by_token = {(line["request_key"], line["position"]): line for line in tokens}
    assert len(by_token) == len(tokens), "a token has two records"
    return by_token


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is different in two records of a token."""
    for name in _EQUAL:
        if found[name] != expected[name]:
            yield f"{name} {found[name]}, expected {expected[name]}"
    for name, (relative, absolute) in _CLOSE.items():
        values = (found[name], expected[name])
        if values != (None, None) and (
            None in values or not math.isclose(*values, rel_tol=relative, abs_tol=absolute)
        ):
            yield f"{name} {found[name]}, expected {expected[name]}"
