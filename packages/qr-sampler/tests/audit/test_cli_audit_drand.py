# SPDX-License-Identifier: Apache-2.0
"""Rounds of drand quicknet: real ones are verified, and nothing else."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from importlib.util import find_spec

import pytest

from qr_sampler_cli.audit.anchors.drand import (
    CHAIN,
    GENESIS_S,
    GROUP_HASH,
    PERIOD_S,
    PUBLIC_KEY,
    InvalidRoundError,
    Round,
    round_after,
    verify_round,
)

# Not imported here: the package changes the limit of recursion for everybody.
pytestmark = pytest.mark.skipif(
    find_spec("py_ecc") is None, reason="the extra anchors is not installed"
)

# What api.drand.sh/52db9ba7…/public/N answers. Rounds 1000 and 1001 are in the tests of several
# clients, 657413 is in the README of mcdcam/python-drand-verify, with its randomness.
ROUNDS = {
    1000: (
        (
            "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125"
            "e342b73a8dd2bacbe47e4b6b63ed5e39"
        ),
        "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd",
    ),
    1001: (
        (
            "b33bf3667cbd5a82de3a24b4e0e9fe5513cc1a0e840368c6e31f5fcfa79bea03"
            "f73896b25883abf2853d10337fb8fa41"
        ),
        "",
    ),
    657413: (
        (
            "b713718a38ae728dfd477991af2822e08d2f305e47718cef9f7848ce4050e7be"
            "41076862b98fad56e91a6b85b89cd97b"
        ),
        "fc1873a13f3545aeade8401532ef5519920652eee6b0d2b19ca12643b87b3587",
    ),
}


@pytest.mark.parametrize("number", ROUNDS)
def test_real_rounds_are_valid(number: int) -> None:
    signature, randomness = ROUNDS[number]
    found = Round.of({"round": number, "signature": signature, "randomness": "not looked at"})
    verify_round(found)
    assert randomness in (found.randomness, "")
    assert Round.of(found.as_dict()) == found


def test_the_key_and_the_times_are_those_of_the_chain() -> None:
    # chain.Info.Hash of drand; the name of the beacon is part of it unless it is "default".
    told = struct.pack(">Iq", PERIOD_S, GENESIS_S)
    told += bytes.fromhex(PUBLIC_KEY) + bytes.fromhex(GROUP_HASH) + b"quicknet"
    assert hashlib.sha256(told).hexdigest() == CHAIN


def test_the_signature_of_another_round_is_refused() -> None:
    for number, other in ((1000, 1001), (1001, 1000), (999, 1000)):
        with pytest.raises(InvalidRoundError, match="does not have this signature"):
            verify_round(Round(number, ROUNDS[other][0]))


def test_a_changed_signature_is_refused() -> None:
    right = bytes.fromhex(ROUNDS[1000][0])
    for index in (0, 1, 20, 47):
        for bit in range(8):
            wrong = bytearray(right)
            wrong[index] ^= 1 << bit
            with pytest.raises(InvalidRoundError):
                verify_round(Round(1000, wrong.hex()))


def test_points_that_are_no_signature_are_refused() -> None:
    # The neutral element, one beyond the field, one that is not compressed, one that is of the
    # curve but not of the group (its order is another), and one that is not of the curve.
    others = ("9f" + "ff" * 47, "00" * 48, "80" + "00" * 46 + "04", "80" + "00" * 46 + "01")
    for signature in ("c0" + "00" * 47, *others):
        with pytest.raises(InvalidRoundError):
            verify_round(Round(1000, signature))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"round": 0, "signature": ROUNDS[1000][0]},
        {"round": True, "signature": ROUNDS[1000][0]},
        {"round": 2**41, "signature": ROUNDS[1000][0]},
        {"round": "1000", "signature": ROUNDS[1000][0]},
        {"round": 1000, "signature": ROUNDS[1000][0][:-2]},
        {"round": 1000, "signature": ROUNDS[1000][0].upper()},
        {"round": 1000, "signature": None},
    ],
)
def test_what_is_no_round_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(InvalidRoundError):
        Round.of(told)


def test_rounds_have_their_times() -> None:
    # https://docs.drand.love: round 1 is at the genesis.
    assert Round(1, "").time_ns == GENESIS_S * 10**9
    assert Round(1000, "").time_ns == 1_692_806_364 * 10**9
    for time_ns in (0, GENESIS_S * 10**9 - 1, GENESIS_S * 10**9, 1_796_000_000_123_456_789):
        number = round_after(time_ns)
        assert Round(number, "").time_ns > time_ns
        assert number == 1 or Round(number - 1, "").time_ns <= time_ns


def test_the_limit_of_recursion_stays() -> None:
    code = (
        "import sys; from qr_sampler_cli.audit.anchors.drand import Round, verify_round\n"
        f"verify_round(Round(1000, {ROUNDS[1000][0]!r}))\n"
        "print(sys.getrecursionlimit())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert told.stdout == "1000\n"
