# SPDX-License-Identifier: Apache-2.0
"""The files of a model: its vocabulary, its tokenizer and its end-of-text token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from qr_sampler.components.failure_policy import END_REQUEST
from qr_sampler.settings import Settings
from qr_sampler_cli.doctor.examination import Examination
from qr_sampler_cli.doctor.request import EngineRequest
from qr_sampler_cli.findings.finding import Finding, ReportSection

__all__ = ["SECTION", "directory_findings", "model_findings"]

SECTION: Final = ReportSection("model")

TOKENIZERS: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
)
"""A tokenizer has at least one of these files."""

ENDS: Final = (
    ("tokenizer_config.json", "eos_token"),
    ("special_tokens_map.json", "eos_token"),
    ("generation_config.json", "eos_token_id"),
    ("config.json", "eos_token_id"),
)
"""Where engines find the end-of-text token."""


def model_findings(
    request: EngineRequest, examined: Examination, settings: Settings | None
) -> Iterator[Finding]:
    """Yields findings about the model.

    Args:
        request: How vLLM will be started.
        examined: The result of importing vLLM.
        settings: The deployment's settings, ``None`` if they are invalid.
    """
    directory = request.model_directory
    if directory is None:
        yield _absent(request.model)
        return
    known = None if examined.configuration is None else examined.configuration.vocab_size
    yield from directory_findings(directory, settings, vocab_size=known)


def directory_findings(
    directory: Path, settings: Settings | None, *, vocab_size: int | None = None
) -> Iterator[Finding]:
    """Yields findings about the directory of a model.

    Args:
        directory: The directory.
        settings: The deployment's settings, ``None`` if they are invalid.
        vocab_size: Number of tokens, if an engine has been asked for it.
    """
    config = directory / "config.json"
    if not config.is_file():
        yield SECTION.problem(
            "files", f"{directory} has no config.json", "name a directory that holds a model"
        )
        return
    yield _vocabulary(config, vocab_size)
    if not any((directory / name).is_file() for name in TOKENIZERS):
        yield SECTION.problem(
            "tokenizer",
            f"{directory} has none of {', '.join(TOKENIZERS)}",
            "copy the files of the tokenizer there; to vLLM it can be named with --tokenizer",
        )
    yield _end_of_text(directory, settings)


def _absent(model: str | None) -> Finding:
    if model is None:
        return SECTION.skipped("files", "no --model was named", "name the model: --model PATH")
    path = Path(model)
    # A name on a hub has one or two parts and no leading dot.
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        return SECTION.problem(
            "files", f"{model} is not a directory", "correct the path, or download the model there"
        )
    return SECTION.skipped(
        "files",
        f"{model} is not a directory here; vLLM will look for it on a model hub",
        "name a directory to have its files examined",
    )


def _vocabulary(config: Path, vocab_size: int | None) -> Finding:
    data = _read(config)
    texts = data.get("text_config")
    size = vocab_size or data.get("vocab_size") or (texts or {}).get("vocab_size")
    if isinstance(size, int):
        return SECTION.ok("vocabulary", f"{size} tokens")
    return SECTION.skipped("vocabulary", f"{config} does not state its size")


def _end_of_text(directory: Path, settings: Settings | None) -> Finding:
    for name, key in ENDS:
        file = directory / name
        value = _read(file).get(key) if file.is_file() else None
        if value is not None:
            shown = value.get("content") if isinstance(value, dict) else value
            return SECTION.ok("end of text", f"{shown!r}, from {name}")
    absence = f"no file in {directory} names an end-of-text token"
    remedy = "set eos_token_id in generation_config.json"
    if settings is not None and settings.fallback_mode == END_REQUEST:
        return SECTION.problem(
            "end of text",
            f"{absence}, and QR_FALLBACK_MODE={END_REQUEST} ends requests with it",
            f"{remedy}, or choose another QR_FALLBACK_MODE",
        )
    return SECTION.warning("end of text", f"{absence}; requests run to their length limit", remedy)


def _read(file: Path) -> dict[str, Any]:
    data = json.loads(file.read_text("utf-8"))
    return data if isinstance(data, dict) else {}
