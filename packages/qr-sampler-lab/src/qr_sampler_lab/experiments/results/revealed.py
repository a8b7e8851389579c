# SPDX-License-Identifier: Apache-2.0
"""A study whose arms are known: unblinding, and what follows from the secrets that it reveals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qr_sampler_lab.experiments.blinding import MAIN, Phase, aliases_of, commitment_of
from qr_sampler_lab.experiments.comparing import differences
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.files.locking import locked_directory
from qr_sampler_lab.experiments.order import order_key
from qr_sampler_lab.experiments.ordering import randomness_of
from qr_sampler_lab.experiments.plan import PlannedSession, planned_sessions
from qr_sampler_lab.experiments.running.heads import ledger_heads
from qr_sampler_lab.experiments.study import Study

__all__ = ["Revealed", "reveal", "unblind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """What the secrets of a study say."""

    aliases: Mapping[tuple[Phase, str], str]
    """Alias of every arm in every phase."""
    sessions: Sequence[PlannedSession]
    """The plan."""
    heads: Mapping[str, Mapping[str, Any]]
    """Lines and head of every ledger, as they were when the arms became known."""

    @property
    def main_arms(self) -> dict[str, str]:
        """Name of the arm by alias, of the randomised blocks."""
        return {alias: arm for (phase, arm), alias in self.aliases.items() if phase == MAIN}

    @property
    def arms(self) -> dict[str, str]:
        """Name of the arm by alias, of all phases."""
        return {alias: arm for (_, arm), alias in self.aliases.items()}


def unblind(study: Study) -> Entry:
    """Makes the arms of a study known, for ever; what its ledgers hold is fixed first.

    Raises:
        StudyError: When the study is open or unblinded already, or its key, protocol or prompts are
            not the sealed ones.
        RecordError: When it is being run.
    """
    key, seal = study.key, study.sealed.seal
    if commitment_of(key.alias_key) != seal.aliases:
        raise StudyError(f"{study.key_path} is not the key that the seal commits to")
    changed = differences(study, model=False, code=False)
    if changed:
        raise StudyError(f"not as it was sealed: {'; '.join(changed)}; bring back what was sealed")
    aliases = aliases_of(study.protocol, key.alias_key)
    # An aborted study may still have an engine that writes, whose ledgers have no end yet.
    with locked_directory(study.made_ledgers(), timeout_s=0.0):
        return study.journal.unblinded(
            {alias: arm for (_, arm), alias in aliases.items()},
            ledger_heads(study.ledgers),
            alias_key=key.alias_key.hex(),
            order_secret=key.order_secret.hex(),
        )


def reveal(study: Study) -> Revealed:
    """Returns what the journal of an unblinded study reveals, checked against its seal.

    Raises:
        StudyError: When it is not unblinded, or the secrets are not those that the seal commits to.
    """
    entries = study.journal.entries()
    found = [entry.values for entry in entries if entry.kind == "unblinded"]
    settled = [entry.values for entry in entries if entry.kind == "order"]
    if not found:
        raise StudyError(
            f"{study.directory} is not unblinded; do it, once and for ever, with `qr-sampler "
            "experiment unblind`"
        )
    sealed, protocol = study.sealed, study.protocol
    alias_key, secret = (_secret(found[0], name) for name in ("alias_key", "order_secret"))
    if commitment_of(alias_key) != sealed.seal.aliases:
        raise StudyError("the revealed key of the aliases is not the one that the seal commits to")
    aliases = aliases_of(protocol, alias_key)
    if found[0].get("aliases") != {alias: arm for (_, arm), alias in aliases.items()}:
        raise StudyError("the revealed names of the arms are not those that the key gives")
    sessions: Sequence[PlannedSession] = ()
    if settled:
        randomness = randomness_of(sealed.seal.order, settled[0], secret)
        sessions = planned_sessions(protocol, aliases, order_key(sealed.digest, randomness))
    return Revealed(aliases=aliases, sessions=sessions, heads=found[0]["ledgers"])


def _secret(values: Mapping[str, Any], name: str) -> bytes:
    try:
        return bytes.fromhex(values[name])
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"the journal reveals no {name}") from error
