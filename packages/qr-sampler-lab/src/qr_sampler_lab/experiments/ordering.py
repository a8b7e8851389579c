# SPDX-License-Identifier: Apache-2.0
"""From a sealed study to its list of requests: where the order comes from is recorded first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qr_sampler_lab.experiments.beacon import fetched_round
from qr_sampler_lab.experiments.blinding import aliases_of, commitment_of
from qr_sampler_lab.experiments.files.chained_record import Entry
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.order import order_key
from qr_sampler_lab.experiments.plan import PlannedSession, planned_sessions
from qr_sampler_lab.experiments.seal import SealedOrder
from qr_sampler_lab.experiments.study import Study

__all__ = ["plan_of", "randomness_of", "settle_order"]


def settle_order(study: Study, *, file: Path | None = None) -> Entry:
    """Records where the order of a study comes from, once; without it no study begins.

    Args:
        study: A sealed study.
        file: JSON of the drand round that the seal names, as drand answers; without one it is asked
            for over the network.

    Raises:
        StudyError: When the secret or the round is not the one that the seal names, or the order is
            settled already.
        AnchorError: When there is no network, or the round is not genuine.
    """
    order = study.sealed.seal.order
    if order.method == "secret":
        _secret_of(study, order)
        return study.journal.ordered("secret", commitment=order.commitment)
    if order.round is None:
        raise StudyError(f"{study.seal_path} names no round of drand")
    beacon = fetched_round(order.round, file)
    if beacon["round"] != order.round:
        raise StudyError(
            f"the seal names round {order.round} of drand, and this is {beacon['round']}"
        )
    return study.journal.ordered("drand", **beacon)


def plan_of(study: Study) -> list[PlannedSession]:
    """Returns all sessions of a study with their requests, in order, under aliases.

    Raises:
        StudyError: When its order is not settled, or does not fit the seal.
    """
    sealed = study.sealed
    settled = study.journal.standing().order
    if settled is None:
        raise StudyError("the order of the arms is not settled yet; `experiment run` does it")
    order = sealed.seal.order
    secret = None if order.method == "drand" else _secret_of(study, order)
    key = order_key(sealed.digest, randomness_of(order, settled, secret))
    return planned_sessions(study.protocol, aliases_of(study.protocol, study.key.alias_key), key)


def randomness_of(order: SealedOrder, settled: Mapping[str, Any], secret: bytes | None) -> bytes:
    """Returns the 32 bytes that decide an order.

    Args:
        order: What the seal says.
        settled: The line of kind ``order`` in the journal.
        secret: The secret that the seal commits to, for the method ``secret``.

    Raises:
        StudyError: When they do not fit each other.
    """
    if settled.get("method") != order.method:
        raise StudyError(f"the order is settled by {settled.get('method')}, not {order.method}")
    if order.method == "secret":
        if secret is None or commitment_of(secret) != order.commitment:
            raise StudyError("the secret of the order is not the one that the seal commits to")
        return secret
    if settled.get("round") != order.round:
        raise StudyError(f"the order is settled by round {settled.get('round')}, not {order.round}")
    # What makes the signature genuine is checked when it is recorded, and by whoever doubts it.
    digest = hashlib.sha256(bytes.fromhex(settled["signature"]))
    if digest.hexdigest() != settled.get("randomness"):
        raise StudyError("the randomness of the round is not the digest of its signature")
    return digest.digest()


def _secret_of(study: Study, order: SealedOrder) -> bytes:
    secret = study.key.order_secret
    if commitment_of(secret) != order.commitment:
        raise StudyError(f"{study.key_path} is not the key that the seal commits to")
    return secret
