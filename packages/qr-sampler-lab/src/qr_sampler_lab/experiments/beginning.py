# SPDX-License-Identifier: Apache-2.0
"""A new study from a protocol that is there already, or from a commented one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from qr_sampler.errors import ConfigError, shown
from qr_sampler.whole_file import write_whole
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.protocol import Protocol, parse_protocol
from qr_sampler_lab.experiments.protocol.files import LARGEST_PROTOCOL, read_bounded
from qr_sampler_lab.experiments.study import LARGEST_PROMPT, PROTOCOL_NAME, Study

__all__ = ["new_study", "shipped_protocols"]

_NAME_LINE: Final = re.compile(rb"^name:.*$", re.MULTILINE)

_SHIPPED: Final = Path(__file__).parent / "protocols"

_TEMPLATE: Final = Path(__file__).parent / "protocol" / "template.yaml"

_STORY: Final = b"Once upon a time, in a village by the sea,"
"""What a prompt holds that is not beside its protocol."""


def shipped_protocols() -> dict[str, Path]:
    """Returns the protocols that come with this package, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}


def new_study(directory: Path, origin: str | None = None) -> Study:
    """Makes the directory of a study: its protocol under a new name, and its prompts.

    Prompts that are not beside the protocol are made of one sentence.

    Args:
        directory: Where; must not exist. Its last part is the name of the study.
        origin: A protocol to begin with: the name of a shipped one, or a file. Without one, it is a
            commented protocol of two arms.

    Raises:
        ConfigError: When the protocol is none, or the name is no name.
        StudyError: When there is something already.
    """
    data, beside = _origin(origin)
    renamed = _NAME_LINE.sub(b"name: " + directory.name.encode(), data, count=1)
    protocol = parse_protocol(renamed, origin or PROTOCOL_NAME)
    if protocol.name != directory.name:
        raise ConfigError(f"{origin} has no line `name:` of its own; name it {directory.name}")
    try:
        directory.mkdir(parents=True)
    except FileExistsError as error:
        raise StudyError(f"{directory} exists already; choose another name") from error
    except OSError as error:
        raise StudyError(f"{directory} cannot be made: {error.strerror}") from error
    _write(directory / PROTOCOL_NAME, renamed)
    for file, text in _prompts(protocol, beside).items():
        path = directory / file
        _write(path, text)
    return Study(directory)


def _origin(origin: str | None) -> tuple[bytes, Path | None]:
    """Returns the bytes of a protocol, and the directory that its prompts may be in."""
    if origin is None:
        return read_bounded(_TEMPLATE, LARGEST_PROTOCOL), None
    shipped = shipped_protocols()
    path = shipped.get(origin, Path(origin))
    if not path.is_file():
        known = ", ".join(shipped) or "none"
        raise ConfigError(
            f"{shown(origin)} is neither a file nor a protocol that is shipped: {known}"
        )
    return read_bounded(path, LARGEST_PROTOCOL), path.parent


def _prompts(protocol: Protocol, beside: Path | None) -> dict[str, bytes]:
    """Returns the bytes of the prompts by file: those beside the protocol, else a sentence."""
    return {
        prompt.file: read_bounded(beside / prompt.file, LARGEST_PROMPT)
        if beside is not None and (beside / prompt.file).is_file()
        else _STORY
        for prompt in protocol.prompts
    }


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data.decode("utf-8"), mode=0o644)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8: {error}") from error
    except OSError as error:
        raise StudyError(f"{path} cannot be written: {error.strerror}") from error
