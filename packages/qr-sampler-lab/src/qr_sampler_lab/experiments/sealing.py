# SPDX-License-Identifier: Apache-2.0
"""Sealing a study: from then on nothing about it can change without being noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

from qr_sampler.records.chain import ZERO_HEAD
from qr_sampler.whole_file import write_whole
from qr_sampler_lab.anchors.drand import round_after
from qr_sampler_lab.experiments.blinding import StudyKey, aliases_of, commitment_of
from qr_sampler_lab.experiments.comparing import differences, digests_of_files
from qr_sampler_lab.experiments.environment import (
    check_arm,
    engine_settings,
    installed_code,
    sealed_model,
    versions_in_use,
)
from qr_sampler_lab.experiments.files.chained_record import clocks_now
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.files.locking import locked_directory
from qr_sampler_lab.experiments.protocol.arm_sources import with_kinds
from qr_sampler_lab.experiments.seal import (
    SEAL_FORMAT,
    RegisterBefore,
    Seal,
    SealedOrder,
    SealedStudy,
    read_seal,
)
from qr_sampler_lab.experiments.study import Study

__all__ = ["ROUND_DELAY_S", "seal_study"]

ROUND_DELAY_S: Final = 60
"""Seconds from the seal to the round that decides the order: more than writing a seal takes."""


def seal_study(study: Study, *, witness: Mapping[str, Any] | None) -> SealedStudy:
    """Seals a study: writes the key and the seal, enters it in the register, begins the journal.

    A sealing that was interrupted is completed with the seal that it wrote.

    Args:
        study: The study.
        witness: A round of drand that proves the seal to be no older, as JSON-ready values.

    Raises:
        ConfigError: When the protocol asks for what the engine will refuse.
        StudyError: When the study is sealed already; says what differs from the seal.
    """
    with locked_directory(study.directory):
        if study.is_sealed:
            raise StudyError(_sealed_before(study))
        if not os.path.lexists(study.seal_path):
            _write_seal(study, witness)
        sealed = read_seal(study.seal_path)
        known = study.register.study(sealed.digest)
        name = sealed.seal.name
        receipt = (
            study.register.seal(sealed.digest, name, study.directory)
            if known is None
            else known.sealed
        )
        study.journal.create(sealed.digest, receipt)
        return sealed


def _sealed_before(study: Study) -> str:
    found = differences(study)
    told = f"; since then, {'; '.join(found)}" if found else " and unchanged"
    return (
        f"{study.directory} is sealed already{told}. A sealed study stays what it is: abort it, or "
        "make another one"
    )


def _write_seal(study: Study, witness: Mapping[str, Any] | None) -> None:
    seal = _made(study, _key_of(study), witness)
    try:
        write_whole(study.seal_path, seal.text, mode=0o644)
    except OSError as error:
        raise StudyError(f"{study.seal_path} cannot be written: {error.strerror}") from error


def _made(study: Study, key: StudyKey, witness: Mapping[str, Any] | None) -> Seal:
    protocol = study.protocol
    engine_settings(protocol, study.directory)
    of_kinds = with_kinds(protocol, study.directory)
    settings = engine_settings(of_kinds, study.directory)
    for arm in of_kinds.arms:
        check_arm(arm, settings)
    aliases_of(protocol, key.alias_key)
    return Seal(
        format=SEAL_FORMAT,
        name=protocol.name,
        files=digests_of_files(study),
        protocol=protocol.model_dump(mode="json"),
        tokens_per_arm=protocol.tokens_per_arm,
        model=sealed_model(study.directory, protocol.model),
        code=installed_code(of_kinds),
        versions=versions_in_use(of_kinds),
        order=_order(protocol.design.order, key),
        aliases=commitment_of(key.alias_key),
        witness=None if witness is None else dict(witness),
        register_before=_register_before(study),
        clocks=clocks_now(),
    )


def _key_of(study: Study) -> StudyKey:
    """Returns the secrets: new ones, or those of a sealing that was interrupted."""
    if not os.path.lexists(study.key_path):
        StudyKey.fresh().write(study.key_path)
    return study.key


def _order(method: str, key: StudyKey) -> SealedOrder:
    if method == "secret":
        return SealedOrder(method="secret", commitment=commitment_of(key.order_secret))
    due_ns = time.time_ns() + ROUND_DELAY_S * 1_000_000_000
    return SealedOrder(method="drand", round=round_after(due_ns))


def _register_before(study: Study) -> RegisterBefore:
    entries = study.register.entries()
    head = entries[-1].head if entries else ZERO_HEAD
    return RegisterBefore(lines=len(entries), head=head)
