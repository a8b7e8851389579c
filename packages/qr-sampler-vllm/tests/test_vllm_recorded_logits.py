# SPDX-License-Identifier: Apache-2.0
"""Recorded logits and played bytes give the tokens and records of the reference in vLLM, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.host import NumpyLogits
from qr_sampler.testing.hosts.recorded_logits import PlayedBytes, Recording, check_recorded
from qr_sampler_vllm.engine import session
from qr_sampler_vllm.runners.v1 import RunnerV1
from qr_sampler_vllm.testing import engine_config, sampling_params


@dataclass
class Update:
    """Same fields as vLLM's ``BatchUpdate``."""

    batch_size: int
    removed: list[int] = field(default_factory=list)
    added: list[Any] = field(default_factory=list)
    moved: list[Any] = field(default_factory=list)


def texts_of(recording: Recording, convert: Callable[[Any], Any]) -> list[list[int]]:
    """Plays vLLM's part: all rows are one batch, whose tokens are read from the forced rows."""
    config = engine_config(max_num_seqs=recording.rows, vocab_size=recording.logits.shape[2])
    runner = RunnerV1(config)
    outputs: list[list[int]] = [[] for _ in recording.options]
    added = [
        (
            row,
            sampling_params(
                extra_args=dict(options), max_tokens=recording.steps, stop_token_ids=(0,)
            ),
            [1, 2],
            outputs[row],
        )
        for row, options in enumerate(recording.options)
    ]
    update: Update | None = Update(recording.rows, added=added)
    for logits in recording.logits:
        runner.update_state(update)
        rows = convert(logits.copy())
        runner.apply(rows)
        for output, token in zip(outputs, rows.argmax(1).tolist(), strict=True):
            output.append(token)
        update = None
    runner.update_state(None)
    runner.close()
    return outputs


def played(monkeypatch: pytest.MonkeyPatch, convert: Callable[[Any], Any], folder: Path) -> None:
    def play(recording: Recording, settings: Settings, source: PlayedBytes) -> list[list[int]]:
        for name, value in settings.model_dump(exclude_defaults=True).items():
            monkeypatch.setenv(f"QR_{name.upper()}", str(value))
        monkeypatch.setattr("qr_sampler.components.failure_policy.create_source", lambda _: source)
        monkeypatch.setattr("qr_sampler.components.pairing._integrates", lambda *_: False)
        return texts_of(recording, convert)

    monkeypatch.setattr(session, "warm_up", lambda **_: None)
    check_recorded(play, folder)


def test_arrays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "TensorLogits", lambda most_rows: NumpyLogits())
    played(monkeypatch, lambda logits: logits, tmp_path)


def test_tensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")
    played(monkeypatch, torch.from_numpy, tmp_path)


def test_tensors_on_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    played(monkeypatch, lambda logits: torch.from_numpy(logits).to("cuda"), tmp_path)
