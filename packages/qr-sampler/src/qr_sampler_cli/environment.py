# SPDX-License-Identifier: Apache-2.0
"""Environment variables of one run, the only way to configure vLLM and its plugins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["engine_defaults", "environment"]


@contextlib.contextmanager
def environment(
    values: Mapping[str, str], *, defaults: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Sets variables while the block runs and restores all of them afterwards.

    Args:
        values: Variables to set, whatever they were.
        defaults: Variables to set where the user has not.
    """
    before = dict(os.environ)
    os.environ.update({**(defaults or {}), **before, **values})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def engine_defaults(model: str, *, verbose: bool) -> dict[str, str]:
    """Returns default variables for running an engine inside a command.

    Args:
        model: Name or directory of the model.
        verbose: Let the engine log what it does.
    """
    defaults = {
        # Records of an engine in this process can be flushed and read while it lives.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # In GiB. Without it vLLM's CPU build measures the memory first, which takes a long time.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # Standard output belongs to the results.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_LOGGING_LEVEL": "INFO" if verbose else "ERROR",
        "TORCH_CPP_LOG_LEVEL": "WARNING" if verbose else "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TRANSFORMERS_VERBOSITY": "info" if verbose else "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if Path(model).is_dir():
        # A model on disk needs nothing from the network, not even a check for updates.
        defaults["HF_HUB_OFFLINE"] = "1"
    return defaults
