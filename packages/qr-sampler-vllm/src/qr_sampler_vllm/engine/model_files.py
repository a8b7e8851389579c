# SPDX-License-Identifier: Apache-2.0
"""Where the files of the engine's model are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

__all__ = ["model_files"]

_CONFIGURATION = "config.json"
"""A file that every model of Hugging Face has."""


def model_files(vllm_config: Any) -> Path | None:
    """Returns the directory of the model, or its file; ``None`` if it is not on a disk.

    Nothing is looked for on the network: a model of Hugging Face is on the disk when an engine
    loads it.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
    """
    model_config = vllm_config.model_config
    path = Path(str(model_config.model))
    try:
        if path.exists():
            return path.absolute()
    except OSError:
        return None
    # An engine that has fetched its model from there has loaded it long before.
    hub: Any = sys.modules.get("huggingface_hub")
    if hub is None:
        return None
    try:
        found = hub.try_to_load_from_cache(
            str(model_config.model),
            _CONFIGURATION,
            cache_dir=getattr(getattr(vllm_config, "load_config", None), "download_dir", None),
            revision=getattr(model_config, "revision", None),
        )
    except (ValueError, OSError):
        # No name of a repository there, such as an address of other storage.
        return None
    return Path(found).parent if isinstance(found, str) else None
