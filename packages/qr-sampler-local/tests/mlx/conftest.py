# SPDX-License-Identifier: Apache-2.0
"""A small model of MLX-LM, and samplers whose source and ledger a test looks into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.testing import WitnessSource, records_in

pytest.importorskip("mlx_lm", reason="MLX-LM is not installed")


@pytest.fixture(scope="package")
def loaded(tiny_dir: Path) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    import mlx_lm

    model, tokenizer = mlx_lm.load(str(tiny_dir))[:2]
    return model, tokenizer


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings with a ledger in the folder of the test."""

    def make(**more: Any) -> Settings:
        return Settings.load(
            **{
                "fallback_mode": "error",
                "sample_count": 16,
                "max_ks_distance": 1.0,
                "entropy_source_type": "witness",
                "ledger_dir": tmp_path / "ledger",
                "ledger_model_digest": False,
                "log_level": "none",
                **more,
            }
        )

    return make


class Watched:
    """A sampler with a source that keeps its own account.

    Args:
        settings: What it samples with.
        source: The source; a witness if not given.
        model: Its name.
    """

    def __init__(self, settings: Settings, source: Any = None, model: str = "tiny") -> None:
        from qr_sampler_local.mlx import MLXSampler

        self.source = source or WitnessSource()
        self.folder = settings.ledger_dir
        self.sampler = MLXSampler(model, settings, sources=[self.source])

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        """Ends the sampler, unless that was done, and returns its records of *kinds*."""
        self.sampler.close()
        assert self.folder is not None
        return [line for line in records_in(Path(self.folder)) if line["kind"] in kinds]

    def emitted(self, name: str) -> list[int]:
        """Returns the tokens of a sequence that the ledger says were emitted."""
        return [
            line["token_id"]
            for line in self.records("token", "forced", "undecided")
            if line["sequence"] == name and line["emitted"]
        ]


@pytest.fixture
def watch(settings_of: Callable[..., Settings]) -> Iterator[Callable[..., Watched]]:
    """Makes samplers, which are closed in the end."""
    made: list[Watched] = []

    def make(source: Any = None, **settings: Any) -> Watched:
        if source is not None:
            settings = {"entropy_source_type": source.name, **settings}
        made.append(Watched(settings_of(**settings), source))
        return made[-1]

    yield make
    for each in made:
        each.sampler.close()
