# SPDX-License-Identifier: Apache-2.0
"""Rounds of drand in bundles are genuine, and the one of the order came after the seal."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler_cli.audit.anchors import drand
from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_lab.experiments.bundle import rounds
from qr_sampler_lab.experiments.bundle.checks import Checks
from qr_sampler_lab.experiments.bundle.rounds import check_rounds
from qr_sampler_lab.experiments.files.chained_record import Entry

GENUINE = {
    "round": 1000,
    "signature": (
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125"
        "e342b73a8dd2bacbe47e4b6b63ed5e39"
    ),
}
"""What https://api.drand.sh answers."""

DUE_NS = (drand.GENESIS_S + 999 * drand.PERIOD_S) * 10**9


def needs_the_extra() -> None:
    """Skips a test without importing anything: the package raises the limit of recursion."""
    if find_spec("py_ecc") is None:
        pytest.skip("needs the extra anchors")


def checked(
    witness: dict[str, Any] | None, order: dict[str, Any], sealed_ns: int = DUE_NS - 1
) -> Checks:
    checks = Checks()
    seal: Any = SimpleNamespace(
        witness=witness,
        clocks={"wall_time_ns": sealed_ns},
        order=SimpleNamespace(method=order["method"]),
    )
    entries = [
        Entry("sealed", 0, "", "", {"kind": "sealed"}),
        Entry("order", 1, "", "", {"kind": "order", **order}),
    ]
    check_rounds(checks, seal, entries)
    return checks


def test_genuine_rounds_hold() -> None:
    needs_the_extra()
    assert checked(GENUINE, {"method": "secret"}).status("seal") == "holds"
    assert not checked(None, {"method": "drand", **GENUINE}).fails


def test_a_forged_round_fails() -> None:
    needs_the_extra()
    forged = {**GENUINE, "round": 1001}
    checks = checked(forged, {"method": "drand", **forged})
    assert checks.status("seal") == checks.status("plan") == "fails"


def test_what_is_no_round_fails() -> None:
    assert checked({"round": "1"}, {"method": "secret"}).status("seal") == "fails"


def test_an_order_that_was_known_before_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "verify_round", lambda told: None)
    order = {"method": "drand", **GENUINE}
    before = {**GENUINE, "round": 999}
    # That nobody knew it is what the clock of the seal says, and nobody else.
    assert checked(before, order).status("plan") == "cannot be said"
    assert checked(before, order, sealed_ns=DUE_NS).status("plan") == "fails"
    assert checked(GENUINE, order).status("plan") == "fails"


def test_without_a_round_or_the_extra_it_cannot_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(None, {"method": "secret"}).status("seal") == "cannot be said"

    def missing(told: drand.Round) -> None:
        raise MissingPackageError("py_ecc is not installed")

    monkeypatch.setattr(rounds, "verify_round", missing)
    checks = checked({**GENUINE, "round": 999}, {"method": "drand", **GENUINE})
    assert checks.status("seal") == checks.status("plan") == "cannot be said"
