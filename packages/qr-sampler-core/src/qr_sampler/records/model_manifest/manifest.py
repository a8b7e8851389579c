# SPDX-License-Identifier: Apache-2.0
"""The manifest of a model: its weights, its configuration and its tokenizer, with their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler.records.model_manifest.digest_cache import DigestCache, identity_of

__all__ = ["HashingStoppedError", "ModelManifest", "manifest_of"]

_SUFFIXES: Final = frozenset(
    {
        *(".safetensors", ".bin", ".pt", ".pth", ".gguf", ".npz"),
        *(".json", ".yaml", ".yml", ".py"),
        *(".model", ".txt", ".jinja", ".tiktoken", ".vocab"),
    }
)
"""Endings of the files that weights, configurations and tokenizers are in."""

_MOST_FILES: Final = 10_000
_PIECE_BYTES: Final = 2**22


class HashingStoppedError(Exception):
    """Somebody has asked for an end before all files were read."""


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """Digests of the files of a model."""

    files: Mapping[str, str]
    """SHA-256 of each file, hexadecimal, by its path in the model's directory, parts separated by
    ``/``."""

    @property
    def text(self) -> str:
        """The files sorted by path, a line for each, as ``sha256sum`` prints them."""
        return "".join(f"{self.files[path]}  {path}\n" for path in sorted(self.files))

    @property
    def sha256(self) -> str:
        """SHA-256 of :attr:`text`, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def manifest_of(
    model: Path, *, cache: Path | None = None, stopped: Callable[[], bool] = lambda: False
) -> ModelManifest:
    """Returns the manifest of a model.

    Of a directory it has the files whose endings are those of weights, configurations, tokenizers
    and code, in sub-folders too; hidden ones and other files, such as a README, are left out.
    Links to files are followed, as snapshots of Hugging Face consist of them.

    Args:
        model: A directory, or a model that is one file.
        cache: File that keeps digests, see :class:`DigestCache`; none if not given.
        stopped: Asked now and then whether to give up.

    Raises:
        ConfigError: When there is no such model, or one of its files changes while it is read.
        HashingStoppedError: When *stopped* has said so.
        OSError: When a file cannot be read.
    """
    files = {model.name: model} if model.is_file() else dict(_files_in(model))
    if not files:
        raise ConfigError(
            f"{model} holds no file of a model; name its directory, with weights and configuration"
        )
    digests = DigestCache(cache)
    try:
        found = {name: _digest_of(path, digests, stopped) for name, path in sorted(files.items())}
    finally:
        digests.save()
    return ModelManifest(found)


def _files_in(directory: Path) -> Iterator[tuple[str, Path]]:
    count = 0
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in _SUFFIXES or not path.is_file():
                continue
            count += 1
            if count > _MOST_FILES:
                raise ConfigError(
                    f"{directory} has more than {_MOST_FILES} files of a model; name the directory "
                    "of one model"
                )
            yield _checked(path.relative_to(directory).as_posix()), path


def _checked(name: str) -> str:
    """Returns *name* if a line of ``sha256sum`` has it as it stands."""
    if not name.isprintable() or "\\" in name:
        raise ConfigError(f"the file {name!r} of a model has a name that no manifest can hold")
    return name


def _digest_of(path: Path, digests: DigestCache, stopped: Callable[[], bool]) -> str:
    with path.open("rb", buffering=0) as file:
        before = identity_of(os.fstat(file.fileno()))
        known = digests.get(path, before)
        if known is not None:
            return known
        digest = hashlib.sha256()
        view = memoryview(bytearray(_PIECE_BYTES))
        read = 0
        # No further than its size was: somebody may append faster than this reads.
        while read <= before[0] and (count := file.readinto(view)):
            if stopped():
                raise HashingStoppedError(path)
            digest.update(view[:count])
            read += count
        if identity_of(os.fstat(file.fileno())) != before:
            raise ConfigError(f"{path} changed while it was read; wait until it is complete")
    digests.put(path, before, digest.hexdigest())
    return digest.hexdigest()
