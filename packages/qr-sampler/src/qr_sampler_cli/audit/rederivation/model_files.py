# SPDX-License-Identifier: Apache-2.0
"""Whether the files of a model are those of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qr_sampler.records.model_manifest import manifest_of
from qr_sampler_cli.audit.findings import Rung

__all__ = ["compare_files"]

_DECISIVE: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".py")
"""Endings of weights and code."""


def compare_files(recorded: Mapping[str, Any], directory: Path, rung: Rung, place: int) -> None:
    """Compares the files in *directory* with those that a ledger names.

    Of files that only one of the two has, weights and code fail. Others are remarked upon: a copy
    of a model needs no tokenizer here.

    Args:
        recorded: Digests by path.
        directory: Where the model is.
        rung: Takes the findings.
        place: Where the ledger names them.
    """
    here = manifest_of(directory).files
    for name in sorted({*recorded, *here}):
        told = f"the file {name[:80]!r} of the model"
        if name in here and name in recorded:
            if recorded[name] != here[name]:
                rung.fail(place, f"{told} is not that of the run")
            continue
        told += " was not there in the run" if name in here else " is not here"
        if Path(name).suffix in _DECISIVE:
            rung.fail(place, told)
        else:
            rung.note(told)
