# SPDX-License-Identifier: Apache-2.0
"""What is different now from what was sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from qr_sampler.errors import ConfigError, QRSamplerError, shown
from qr_sampler_lab.experiments.blinding import commitment_of
from qr_sampler_lab.experiments.environment import (
    files_in,
    installed_code,
    sealed_model,
    versions_in_use,
)
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.protocol.arm_sources import with_kinds
from qr_sampler_lab.experiments.protocol.files import read_bounded
from qr_sampler_lab.experiments.seal import Seal
from qr_sampler_lab.experiments.study import LARGEST_PROMPT, PROTOCOL_NAME, Study

__all__ = ["differences", "digests_of_files", "refuse_differences"]


def refuse_differences(study: Study, *, model: bool = True) -> None:
    """Refuses a study that is not what was sealed.

    Args:
        study: The study.
        model: Whether to compare the files of the model, which takes seconds per gigabyte.

    Raises:
        StudyError: Naming everything that differs.
    """
    found = differences(study, model=model)
    if found:
        raise StudyError(
            f"{study.directory} is not what was sealed: {'; '.join(found)}. Bring back what was "
            "sealed, or abort the study and seal a new one"
        )


def differences(study: Study, *, model: bool = True, code: bool = True) -> list[str]:
    """Returns in words what differs from the seal: files, protocol, N, code, model, key, journal.

    Args:
        study: A sealed study.
        model: Whether to compare the files of the model.
        code: Whether to compare installed code and versions.
    """
    sealed = study.sealed
    seal = sealed.seal
    protocol = seal.sealed_protocol
    found = _of_files(study, seal)
    if code:
        of_kinds = with_kinds(protocol, study.directory)
        found += _changed("the code of", seal.code, installed_code(of_kinds))
        found += _changed("the version of", seal.versions, versions_in_use(of_kinds))
    if model:
        found += _of_model(study, seal)
    found += _of_key(study, seal)
    begun_with = study.journal.standing().seal
    if begun_with != sealed.digest:
        found.append(
            f"seal.json has the digest {sealed.digest}, and the journal begins with {begun_with}: "
            "the seal or the journal was exchanged"
        )
    return found


def digests_of_files(study: Study) -> dict[str, str]:
    """Returns the SHA-256 of the protocol, of all prompts and of files in settings, by path.

    Raises:
        ConfigError: When one cannot be read, or differs from its digest in the protocol.
    """
    protocol = study.protocol
    digests = {PROTOCOL_NAME: _digest(study.protocol_path)}
    for prompt in protocol.prompts:
        digest = digests[prompt.file] = _digest(study.directory / prompt.file)
        if prompt.sha256 not in (None, digest):
            raise ConfigError(
                f"the prompt {prompt.file} has the digest {digest}, and the protocol says "
                f"{prompt.sha256}; bring back the right file"
            )
    for file in files_in(protocol).values():
        digests[file] = _digest(study.directory / file)
    return digests


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bounded(path, LARGEST_PROMPT)).hexdigest()


def _of_files(study: Study, seal: Seal) -> list[str]:
    found = []
    for file, digest in seal.files.items():
        try:
            now = _digest(study.directory / file)
        except ConfigError as error:
            found.append(str(error))
            continue
        if now != digest:
            found.append(f"{file} was changed")
    if any(fault.startswith(PROTOCOL_NAME) for fault in found):
        found += _of_protocol(study, seal)
    return found


def _of_protocol(study: Study, seal: Seal) -> list[str]:
    """Returns which keys of a changed protocol have another value."""
    try:
        protocol = study.protocol
    except ConfigError as error:
        return [str(error)]
    found = list(_unequal("", seal.completed_protocol, protocol.model_dump(mode="json")))
    if protocol.tokens_per_arm != seal.tokens_per_arm:
        found.append(f"N is {protocol.tokens_per_arm} and was {seal.tokens_per_arm}")
    return found


def _unequal(place: str, sealed: object, now: object) -> Iterator[str]:
    """Yields where two values differ, and how, as deep inside as it can be said."""
    if isinstance(sealed, dict) and isinstance(now, dict):
        for key in sorted(sealed.keys() | now.keys()):
            yield from _unequal(f"{place}.{key}" if place else key, sealed.get(key), now.get(key))
    elif isinstance(sealed, list) and isinstance(now, list) and len(sealed) == len(now):
        for number, (before, after) in enumerate(zip(sealed, now, strict=True)):
            yield from _unequal(f"{place}.{number}", before, after)
    elif sealed != now:
        yield f"{place} is {shown(now)} and was {shown(sealed)}"


def _changed(what: str, sealed: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{what} {name} is {now.get(name) or 'gone'} and was {value}"
        for name, value in sealed.items()
        if now.get(name) != value
    ]


def _of_model(study: Study, seal: Seal) -> list[str]:
    try:
        now = sealed_model(study.directory, seal.sealed_protocol.model)
    except QRSamplerError as error:
        return [str(error)]
    found = _changed("the file of the model", seal.model.files, now.files)
    found += [
        f"the model has the file {name}, which it had not"
        for name in sorted(now.files.keys() - seal.model.files.keys())
    ]
    if now.name != seal.model.name:
        found.append(f"the model is called {now.name} and was {seal.model.name}")
    return found


def _of_key(study: Study, seal: Seal) -> list[str]:
    """Returns what is wrong with the secrets, if they are there: they may be kept elsewhere."""
    if not study.key_path.exists():
        return []
    try:
        key = study.key
    except StudyError as error:
        return [str(error)]
    fits = commitment_of(key.alias_key) == seal.aliases and seal.order.commitment in (
        None,
        commitment_of(key.order_secret),
    )
    return [] if fits else [f"{study.key_path} is not the key that the seal commits to"]
