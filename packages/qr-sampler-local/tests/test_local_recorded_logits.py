# SPDX-License-Identifier: Apache-2.0
"""Whatever library holds the logits, they give the tokens and records of the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler import Settings
from qr_sampler.testing.hosts.recorded_logits import PlayedBytes, Recording, check_recorded
from qr_sampler_local import LocalSampler
from qr_sampler_local.loop import access

Convert = Callable[[Any], Any]


def of_numpy(logits: Any) -> Any:
    return logits


def of_torch(logits: Any) -> Any:
    return import_module("torch").from_numpy(np.ascontiguousarray(logits))


def of_cuda(logits: Any) -> Any:
    return of_torch(logits).to("cuda")


def of_mlx(logits: Any) -> Any:
    # A computation that MLX puts off until somebody reads it.
    return import_module("mlx.core").array(logits) + 0.0


def player(convert: Convert, batch: int) -> Any:
    def play(
        recording: Recording, settings: Settings, source: PlayedBytes
    ) -> Sequence[Sequence[int]]:
        texts: list[list[int]] = []
        with LocalSampler("recording", settings, sources=[source]) as sampler:
            for first in range(0, recording.rows, batch):
                sequences = [
                    sampler.sequence(end_tokens=[0], max_tokens=recording.steps, **options)
                    for options in recording.options[first : first + batch]
                ]
                for logits in recording.logits[:, first : first + batch]:
                    sampler.step(convert(logits), sequences)
                texts += [sequence.tokens for sequence in sequences]
        return texts

    return play


@pytest.mark.parametrize("batch", [1, 5, 54])
def test_arrays_of_numpy(tmp_path: Path, batch: int) -> None:
    check_recorded(player(of_numpy, batch), tmp_path)


def test_without_the_fast_selectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "has_accel", lambda: False)
    check_recorded(player(of_numpy, 9), tmp_path)


def test_tensors_of_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    check_recorded(player(of_torch, 9), tmp_path)


@pytest.mark.parametrize("fast", [True, False])
def test_tensors_on_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if not fast:
        monkeypatch.setattr(access, "has_accel", lambda: False)
    check_recorded(player(of_cuda, 9), tmp_path)


def test_arrays_of_mlx(tmp_path: Path) -> None:
    pytest.importorskip("mlx.core", reason="needs MLX")
    check_recorded(player(of_mlx, 9), tmp_path)
