# SPDX-License-Identifier: Apache-2.0
"""What is said of an engine: its versions, its devices, its model and its first token."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler_cli.doctor import model as model_files
from qr_sampler_cli.doctor.local.examination import LocalExamination
from qr_sampler_cli.doctor.local.request import LocalRequest
from qr_sampler_cli.doctor.requirements import required, satisfies
from qr_sampler_cli.engines.models import check_model
from qr_sampler_cli.findings.finding import Finding, ReportSection
from qr_sampler_cli.remedies import from_clone

__all__ = [
    "ACCELERATORS",
    "ENGINE",
    "MODEL",
    "TOKEN",
    "accelerator_findings",
    "import_findings",
    "installed_findings",
    "model_findings",
    "token_findings",
]

ENGINE: Final = ReportSection("engine")
ACCELERATORS: Final = ReportSection("accelerators")
MODEL: Final = model_files.SECTION
TOKEN: Final = ReportSection("token")

LOCAL: Final = "qr-sampler-local"
GGUF_HEADER: Final = struct.Struct("<4sIQQ")
"""Magic, version, numbers of tensors and of metadata entries, as gguf.h of llama.cpp has them."""


def installed_findings(request: LocalRequest) -> Iterator[Finding]:
    """Yields whether the engine is installed in versions that are tested.

    Args:
        request: What is examined.
    """
    known = request.known
    install = f"install it {from_clone(f'qr-sampler[{known.name}]')}"
    if known.missing:
        missing = " and ".join(known.missing)
        yield ENGINE.problem("installed", f"{known.title} lacks {missing}", install)
        return
    try:
        ranges = required(distribution(LOCAL).requires, extra=known.name)
    except PackageNotFoundError:
        ranges = {}
    yield ENGINE.ok("installed", f"{known.title} {known.version or 'of an unknown version'}")
    for name, allowed in ranges.items():
        if not allowed or name.startswith(("qr-", "numpy")):
            continue
        try:
            present = version(name)
        except PackageNotFoundError:
            continue
        if satisfies(present, allowed) is False:
            found = f"{name} {present} is older than the oldest that is tested: {allowed}"
            yield ENGINE.warning("version", found, install.replace("pip install", "pip install -U"))
        else:
            yield ENGINE.ok("version", f"{name} {present}; tested: {allowed}")


def import_findings(request: LocalRequest, seen: LocalExamination) -> Iterator[Finding]:
    """Yields whether the engine and its adapter import.

    Args:
        request: What is examined.
        seen: The result of importing it.
    """
    if request.known.missing:
        return
    if reason := seen.failure or seen.import_error:
        yield ENGINE.problem(
            "import",
            f"{request.known.title} does not import: {reason}",
            f"install it again for this Python {from_clone(f'qr-sampler[{request.engine}]')}",
        )
        return
    yield ENGINE.ok("import", f"{request.known.title} and its adapter import")


def accelerator_findings(request: LocalRequest, seen: LocalExamination) -> Iterator[Finding]:
    """Yields what computes the logits, and what chooses the tokens.

    Args:
        request: What is examined.
        seen: The result of importing it.
    """
    if seen.devices_error:
        yield ACCELERATORS.skipped("device", f"it could not be asked: {seen.devices_error}")
    elif seen.devices:
        yield ACCELERATORS.ok("device", seen.devices)
    has_accel = find_spec("qr_sampler_accel") is not None
    if not has_accel or find_spec("numba") is None:
        lacking = "numba" if has_accel else "qr-sampler-accel"
        yield ACCELERATORS.warning(
            "selection",
            f"{lacking} is not installed; NumPy chooses the same tokens, more slowly",
            f"install it {from_clone(f'{LOCAL}[fast]')}",
        )
        return
    yield ACCELERATORS.ok("selection", "compiled loops choose the tokens of logits on the host")
    if seen.compile_cache:
        yield ACCELERATORS.ok("compile cache", f"compiled loops are kept in {seen.compile_cache}")
    elif seen.compile_cache is not None:
        yield ACCELERATORS.warning(
            "compile cache",
            "there is no place for compiled loops, so that every process compiles them anew",
            "set NUMBA_CACHE_DIR to a directory that can be written to",
        )


def model_findings(request: LocalRequest, settings: Settings | None) -> Iterator[Finding]:
    """Yields findings about the files of the model.

    Args:
        request: What is examined.
        settings: The deployment's settings, ``None`` if they are invalid.
    """
    gguf = request.engine == "llama-cpp"
    if request.model is None:
        example = "MODEL.gguf" if gguf else "PATH"
        yield MODEL.skipped("files", "no --model was named", f"name the model: --model {example}")
        return
    try:
        check_model(request.model, gguf=gguf)
    except ConfigError as error:
        yield MODEL.problem("files", str(error), "name a model that this engine reads")
        return
    path = request.model_path
    if path is None:
        yield MODEL.skipped(
            "files",
            f"{request.model} is not here; it will be looked for on the model hub",
            "name a directory to have its files examined",
        )
    elif gguf:
        yield _gguf(path)
    else:
        yield from model_files.directory_findings(path, settings)


def _gguf(path: Path) -> Finding:
    """Returns what the header of a file of llama.cpp says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(GGUF_HEADER.size)
    if len(header) < GGUF_HEADER.size:
        found = f"{path} ends after {size} bytes, before its header does"
        return MODEL.problem("files", found, "download it again")
    _, number, tensors, entries = GGUF_HEADER.unpack(header)
    about = f"GGUF version {number}, {tensors} tensors, {entries} entries, {size / 1e6:.1f} MB"
    return MODEL.ok("files", about)


def token_findings(request: LocalRequest, seen: LocalExamination) -> Iterator[Finding]:
    """Yields whether a token could be generated, and whether its record says so.

    Args:
        request: What is examined.
        seen: The result.
    """
    if not request.token:
        remedy = "" if request.model is None else "generate one: --token"
        yield TOKEN.skipped("generated", "none: that loads the model and draws", remedy)
    elif seen.failure or seen.import_error:
        yield TOKEN.skipped("generated", "none, because the engine does not import")
    elif seen.token_error:
        yield TOKEN.problem("generated", seen.token_error, "change what the message names")
    else:
        yield TOKEN.ok("generated", f"in {seen.seconds:.1f} s: {seen.token}")
