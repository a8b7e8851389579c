# SPDX-License-Identifier: Apache-2.0
"""Paths and names of models, refused where no engine could find one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError

__all__ = ["check_model", "with_origin"]

MODEL_FILES: Final = ("config.json", "params.json")
"""What describes a model in its directory: that of Hugging Face, or Mistral's."""
HUB_NAME: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:\w[\w.-]*)?")
"""A name on the model hub, with the quantisation that vLLM may be told behind a colon."""
GGUF_MAGIC: Final = b"GGUF"
"""What files of llama.cpp begin with."""


def check_model(model: str, *, gguf: bool = False) -> None:
    """Refuses a path at which there is no model, which engines would look for on the model hub.

    Args:
        model: A path, or a name on the hub: ``name`` or ``owner/name``.
        gguf: Whether it has to be a file of llama.cpp.

    Raises:
        ConfigError: When it can only be a path and there is nothing, or no model, there.
    """
    path = Path(model).expanduser()
    if gguf:
        _check_gguf(model, path)
        return
    if path.is_dir() and not any((path / name).is_file() for name in MODEL_FILES):
        raise ConfigError(
            f"--model {model}: the directory holds none of {', '.join(MODEL_FILES)}, so it is no "
            "model; name the directory that does"
        )
    if not path.exists() and not HUB_NAME.fullmatch(model) and "://" not in model:
        raise ConfigError(
            f"--model {model}: there is no such directory; correct the path, or make a small model "
            "there with: qr-sampler tiny-model"
        )


def _check_gguf(model: str, path: Path) -> None:
    if path.exists() and not path.is_file():
        # A pipe would be waited for.
        raise ConfigError(f"--model {model}: this is no .gguf file; name one for llama.cpp")
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ConfigError(
            f"--model {model}: llama.cpp needs a .gguf file, and this cannot be read "
            f"({error.strerror}); correct the path, or download such a file"
        ) from error
    if magic != GGUF_MAGIC:
        raise ConfigError(f"--model {model}: this is no .gguf file; name one for llama.cpp")


def with_origin(model: str) -> str:
    """Returns the model as an error names it, with where it was looked for."""
    if Path(model).exists():
        return model
    return f"{model} (sought on the model hub, since nothing here has that name)"
