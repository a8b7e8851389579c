# SPDX-License-Identifier: Apache-2.0
"""What the records say of a Transformers model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["host_facts", "model_files", "model_name"]


def model_name(model: Any) -> str:
    """Returns the name or path that a model was loaded from, else the name of its class."""
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


def model_files(model: Any) -> Path | None:
    """Returns the directory of its files, ``None`` if it is not known. Nothing is downloaded."""
    name = model_name(model)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    revision = getattr(model.config, "_commit_hash", None)
    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        # It was made in memory, so that its name is none of a repository.
        return None
    return Path(found).parent if isinstance(found, str) else None


def host_facts(model: Any) -> dict[str, Any]:
    """Returns how the model computes, as JSON-ready values for the genesis record."""
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "attention": str(getattr(model.config, "_attn_implementation", "")),
    }
