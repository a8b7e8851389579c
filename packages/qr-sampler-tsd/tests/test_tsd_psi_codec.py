# SPDX-License-Identifier: Apache-2.0
"""The bytes of both versions against vectors made with nothing but ``struct``.

``vectors()`` writes each field on its own, in the order of the schema, as anyone would who
implements it elsewhere; the hex strings are what it has written.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_tsd import PsiError, PsiRelative, PsiTopK

V1_FIELDS = {
    "ids": [50_256, 0, 258],
    "scores_q8": [127, -1, -128],
    "scale": 0.1,
    "zero_point": -7,
    "tau": 0.7,
    "epsilon": 1e-6,
    "vocab_size": 50_257,
}
V2_FIELDS = {
    "ids": [151_935, 1],
    "scores_q8": [127, -128],
    "scale": 0.05,
    "tau": 1.0,
    "log_tail": -3.25,
    "vocab_size": 151_936,
}
V1_HEX = "50c4000000000000020100007fff80cdcccc3df99a39110051c40000"
V2_HEX = "7f510200010000007f80cdcc4c3d003c000050c080510200"


def vectors() -> tuple[bytes, bytes]:
    one = b"".join(struct.pack("<i", token) for token in V1_FIELDS["ids"])
    one += b"".join(struct.pack("<b", code) for code in V1_FIELDS["scores_q8"])
    one += struct.pack("<f", 0.1) + struct.pack("<b", -7)
    one += struct.pack("<e", 0.7) + struct.pack("<e", 1e-6) + struct.pack("<i", 50_257)
    two = b"".join(struct.pack("<i", token) for token in V2_FIELDS["ids"])
    two += b"".join(struct.pack("<b", code) for code in V2_FIELDS["scores_q8"])
    two += struct.pack("<f", 0.05) + struct.pack("<e", 1.0)
    two += struct.pack("<f", -3.25) + struct.pack("<i", 151_936)
    return one, two


def test_the_vectors_are_what_struct_writes() -> None:
    assert tuple(data.hex() for data in vectors()) == (V1_HEX, V2_HEX)


def test_golden_vector_of_version_1() -> None:
    psi = PsiTopK(**V1_FIELDS)
    assert psi.to_bytes().hex() == V1_HEX
    assert PsiTopK.from_bytes(bytes.fromhex(V1_HEX)) == psi
    assert (psi.scale, psi.tau) == (float(np.float32(0.1)), float(np.float16(0.7)))
    assert psi.epsilon == 17 * 2.0**-24


def test_golden_vector_of_version_2() -> None:
    psi = PsiRelative(**V2_FIELDS)
    assert psi.to_bytes().hex() == V2_HEX
    assert PsiRelative.from_bytes(bytes.fromhex(V2_HEX)) == psi
    assert psi.scores.tolist() == [0.0, -255 * float(np.float32(0.05))]


@pytest.mark.parametrize(
    ("k", "one", "two"),
    [(1, 18, 19), (16, 93, 94), (32, 173, 174), (64, 333, 334), (128, 653, 654), (256, 1293, 1294)],
)
def test_sizes(k: int, one: int, two: int) -> None:
    ids, codes = list(range(k)), [0] * k
    first = PsiTopK(
        ids=ids, scores_q8=codes, scale=1, zero_point=0, tau=1, epsilon=0, vocab_size=300
    )
    second = PsiRelative(ids=ids, scores_q8=codes, scale=1, tau=1, log_tail=0, vocab_size=300)
    assert (first.size_bytes, len(first.to_bytes())) == (one, one) == (5 * k + 13, 5 * k + 13)
    assert (second.size_bytes, len(second.to_bytes())) == (two, two) == (5 * k + 14, 5 * k + 14)


def float16s(smallest: float) -> st.SearchStrategy[float]:
    return st.floats(smallest, 65_504, width=16)


HEADS = st.lists(st.tuples(st.integers(0, 2**31 - 2), st.integers(-128, 127)), min_size=1)
ANY_HEAD = HEADS.map(lambda head: list(dict(head).items()))


@given(
    ANY_HEAD,
    st.floats(2.0**-149, 2.0**127, width=32),
    st.integers(-128, 127),
    float16s(2.0**-24),
    float16s(0),
)
def test_version_1_comes_back(
    head: list[tuple[int, int]], scale: float, zero_point: int, tau: float, epsilon: float
) -> None:
    ids, codes = zip(*head, strict=True)
    psi = PsiTopK(
        ids=ids,
        scores_q8=codes,
        scale=scale,
        zero_point=zero_point,
        tau=tau,
        epsilon=epsilon,
        vocab_size=2**31 - 1,
    )
    copy = PsiTopK.from_bytes(psi.to_bytes())
    assert copy == psi
    assert copy.ids.tolist() == list(ids)
    assert copy.scores_q8.tolist() == list(codes)
    assert (copy.scale, copy.zero_point, copy.tau, copy.epsilon) == (
        scale,
        zero_point,
        tau,
        epsilon,
    )


@given(
    ANY_HEAD,
    st.floats(0, 2.0**127, width=32),
    float16s(2.0**-24),
    st.one_of(st.just(-np.inf), st.floats(-(2.0**100), 2.0**100, width=32)),
)
def test_version_2_comes_back(
    head: list[tuple[int, int]], scale: float, tau: float, log_tail: float
) -> None:
    ids, codes = zip(*head, strict=True)
    psi = PsiRelative(
        ids=ids, scores_q8=codes, scale=scale, tau=tau, log_tail=log_tail, vocab_size=2**31 - 1
    )
    copy = PsiRelative.from_bytes(psi.to_bytes())
    assert copy == psi
    assert (copy.scale, copy.tau, copy.log_tail) == (scale, tau, log_tail)
    assert copy.law().probs_of(ids).tolist() == psi.law().probs_of(ids).tolist()


def test_the_mask_travels_beside_the_bytes() -> None:
    psi = PsiTopK(**V1_FIELDS, excluded=[9, 3])
    assert psi.to_bytes().hex() == V1_HEX
    assert PsiTopK.from_bytes(psi.to_bytes(), [3, 9]) == psi


VERSIONS = pytest.mark.parametrize(
    ("version", "data"),
    [(PsiTopK, bytes.fromhex(V1_HEX)), (PsiRelative, bytes.fromhex(V2_HEX))],
    ids=["v1", "v2"],
)


@VERSIONS
def test_every_other_length_is_refused(
    version: type[PsiTopK] | type[PsiRelative], data: bytes
) -> None:
    for length in range(len(data)):
        with pytest.raises(PsiError):
            version.from_bytes(data[:length])
    for more in range(1, 11):
        with pytest.raises(PsiError):
            version.from_bytes(data + bytes(more))


@VERSIONS
@given(noise=st.binary(max_size=64), places=st.lists(st.integers(0, 63), max_size=3))
def test_other_bytes_are_a_payload_of_just_these_bytes_or_an_error(
    version: type[PsiTopK] | type[PsiRelative], data: bytes, noise: bytes, places: list[int]
) -> None:
    flipped = bytearray(data)
    for at, place in enumerate(places):
        flipped[place % len(data)] ^= 1 << at
    for candidate in (noise, bytes(flipped)):
        try:
            psi = version.from_bytes(candidate)
        except PsiError:
            continue
        assert psi.to_bytes() == candidate
        cells = psi.law().cell_probs
        assert cells.sum() == pytest.approx(1)


@VERSIONS
@pytest.mark.parametrize("excluded", [[2, 2], [-1], [2**31], [0.5], np.ones(3, dtype=bool)])
def test_a_hostile_mask_beside_good_bytes_is_refused(
    version: type[PsiTopK] | type[PsiRelative], data: bytes, excluded: object
) -> None:
    with pytest.raises(PsiError, match="excluded"):
        version.from_bytes(data, excluded)
