# SPDX-License-Identifier: Apache-2.0
"""Both versions of the payload: what they refuse, and the distribution they represent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_sampler_tsd import PsiError, PsiRelative, PsiTopK, TSDError, craft_psi, craft_relative_psi
from qr_sampler_tsd.errors import GateError, MissingExtraError, MixingError

V1: dict[str, Any] = {
    "ids": [5, 2, 9],
    "scores_q8": [-3, -10, -128],
    "scale": 0.125,
    "zero_point": -3,
    "tau": 0.75,
    "epsilon": 0.001,
    "vocab_size": 12,
}
V2: dict[str, Any] = {
    "ids": [5, 2, 9],
    "scores_q8": [127, 120, -128],
    "scale": 0.125,
    "tau": 0.75,
    "log_tail": -2.5,
    "vocab_size": 12,
}
BOTH = pytest.mark.parametrize(
    ("version", "fields"), [(PsiTopK, V1), (PsiRelative, V2)], ids=["v1", "v2"]
)
Version = type[PsiTopK] | type[PsiRelative]


def refused(version: Version, fields: dict[str, Any], message: str = "", **change: Any) -> None:
    with pytest.raises(PsiError, match=message) as caught:
        version(**{**fields, **change})
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TSDError)


def test_law_of_version_1() -> None:
    psi = PsiTopK(**V1)
    tau, epsilon = 0.75, float(np.float16(0.001))
    weights = [math.exp((code + 3) * 0.125 / tau) for code in (-3, -10, -128)]
    total = sum(weights) + 9 * epsilon
    expected = {5: weights[0], 2: weights[1], 9: weights[2], 0: epsilon, 11: epsilon}
    for token, weight in expected.items():
        assert psi.law().prob_of(token) == pytest.approx(weight / total, rel=1e-13)


def test_law_of_version_2() -> None:
    psi = PsiRelative(**V2)
    weights = [math.exp((code - 127) * 0.125 / 0.75) for code in (127, 120, -128)]
    tail = math.exp(-2.5)
    total = sum(weights) + tail
    expected = {5: weights[0], 2: weights[1], 9: weights[2], 0: tail / 9, 11: tail / 9}
    for token, weight in expected.items():
        assert psi.law().prob_of(token) == pytest.approx(weight / total, rel=1e-13)


@BOTH
def test_an_excluded_token_takes_only_its_own_weight_along(
    version: Version, fields: dict[str, Any]
) -> None:
    whole = version(**fields).law()
    masked = version(**fields, excluded=[0, 2]).law()
    kept = [token for token in range(12) if token not in (0, 2)]
    share = whole.probs_of(kept).sum()
    np.testing.assert_allclose(masked.probs_of(kept), whole.probs_of(kept) / share, rtol=1e-13)
    assert masked.probs_of([0, 2]).tolist() == [0, 0]


def test_scores_are_not_shift_invariant_in_version_1() -> None:
    """The floor applies beside the scores: codes that are 20 higher shrink the tail."""
    shifted = {**V1, "scores_q8": [17, 10, -108]}
    ratio = PsiTopK(**shifted).law().tail_mass / PsiTopK(**V1).law().tail_mass
    assert ratio < math.exp(-20 * 0.125 / 0.75) * 1.1


@BOTH
def test_payloads_are_immutable_and_compared_by_value(
    version: Version, fields: dict[str, Any]
) -> None:
    ids = np.array(fields["ids"])
    psi = version(**{**fields, "ids": ids})
    ids[0] = 11
    assert psi.ids.tolist() == [5, 2, 9]
    with pytest.raises(ValueError, match="read-only"):
        psi.ids[0] = 1
    with pytest.raises(AttributeError):
        psi.tau = 2.0
    assert psi == version(**fields)
    assert hash(psi) == hash(version(**fields))
    assert psi != version(**fields, excluded=[0])
    assert psi != "psi"
    assert PsiTopK(**V1) != PsiRelative(**V2)


@BOTH
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [5, 2, 5]}, "the ids hold the id 5 more than once"),
        ({"ids": [5, 2, 12]}, r"the id 12, outside \[0, 12\)"),
        ({"ids": [5, 2, -1]}, "the id -1"),
        ({"ids": [5, 2, 2**32 + 1]}, "outside"),
        ({"ids": [5.0, 2.0, 9.0]}, "float64"),
        ({"ids": [True, False, True]}, "bool"),
        ({"ids": [[5, 2, 9]]}, r"of shape \(1, 3\)"),
        ({"ids": [], "scores_q8": []}, "at least one id"),
        ({"ids": "529"}, "list of integers"),
        ({"scores_q8": [0, 0]}, "3 ids need as many integer scores"),
        ({"scores_q8": [0, 0, 0, 0]}, "3 ids need as many integer scores"),
        ({"scores_q8": [300, 0, 0]}, "a score code is .*300.* from -128 to 127"),
        ({"scores_q8": [0, 0, -129]}, "-129"),
        ({"scores_q8": [0.0, 0.0, 0.0]}, "float64"),
        ({"scores_q8": [0, 0, np.nan]}, "float64"),
        ({"scores_q8": [True, False, True]}, "bool"),
        ({"scale": -0.125}, "scale=-0.125 .* at"),
        ({"scale": math.nan}, "scale=nan"),
        ({"scale": math.inf}, "scale=inf"),
        ({"scale": 1e39}, r"scale=1e\+39 is inf in float32"),
        ({"scale": 10**400}, "scale is an integer that no float holds"),
        ({"scale": "0.1"}, "scale='0.1' is no number"),
        ({"scale": None}, "scale=None is no number"),
        ({"scale": 1j}, "is no number"),
        ({"tau": 0.0}, "tau=0.0 .* above 0"),
        ({"tau": -1.0}, "tau=-1.0"),
        ({"tau": math.nan}, "tau=nan"),
        ({"tau": 65_520.0}, "tau=65520.0 is inf in float16"),
        ({"tau": 2.0**-25}, "is 0.0 in float16; it must be above 0"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"vocab_size": -12}, "vocab_size=-12"),
        ({"vocab_size": 2**31}, "vocab_size=2147483648"),
        ({"vocab_size": 12.0}, "vocab_size=12.0 must be an integer"),
        ({"vocab_size": True, "ids": [0], "scores_q8": [0]}, "vocab_size=True"),
        ({"excluded": [12]}, "the excluded ids hold the id 12"),
        ({"excluded": [-1]}, "the excluded ids hold the id -1"),
        ({"excluded": [3, 3]}, "the excluded ids hold the id 3 more than once"),
        ({"excluded": np.ones(12, dtype=bool)}, "got bool"),
        ({"excluded": [0.0, 1.0]}, "got float64"),
        ({"excluded": [[1, 2]]}, "shape"),
        ({"excluded": 3}, "shape"),
    ],
)
def test_malformed_fields_are_refused(
    version: Version, fields: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    refused(version, fields, message, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0.0}, "scale=0.0 .* above 0"),
        ({"scale": 1e-46}, "scale=1e-46 is 0.0 in float32; it must be above 0"),
        ({"zero_point": 128}, "zero_point is 128"),
        ({"zero_point": 0.0}, "zero_point is 0.0"),
        ({"zero_point": True}, "zero_point is True"),
        ({"epsilon": -1e-3}, "epsilon=-0.001"),
        ({"epsilon": math.nan}, "epsilon=nan"),
        ({"epsilon": 65_520.0}, "epsilon=65520.0 is inf in float16 .* at most 65504|65504"),
    ],
)
def test_fields_of_version_1(change: dict[str, Any], message: str) -> None:
    refused(PsiTopK, V1, message, **change)


@pytest.mark.parametrize("log_tail", [math.nan, math.inf, 1e39])
def test_tails_of_version_2(log_tail: float) -> None:
    refused(PsiRelative, V2, "log_tail=", log_tail=log_tail)


def test_what_the_edges_of_float16_hold() -> None:
    assert PsiTopK(**{**V1, "epsilon": 65_504.0}).epsilon == 65_504
    assert PsiTopK(**{**V1, "tau": 2.0**-24}).tau == 2.0**-24
    assert PsiTopK(**{**V1, "tau": 2.0**-24}).law().probs().sum() == pytest.approx(1)
    assert PsiRelative(**{**V2, "scale": 0.0}).law().head_probs.tolist() == pytest.approx(
        [(1 - PsiRelative(**{**V2, "scale": 0.0}).law().tail_mass) / 3] * 3
    )


@BOTH
def test_masks_may_come_in_any_order_and_type(version: Version, fields: dict[str, Any]) -> None:
    psi = version(**fields, excluded=np.array([7, 1, 5], dtype=np.uint8))
    assert psi.excluded.tolist() == [1, 5, 7]
    assert psi.law().ids.tolist() == [2, 9]


@BOTH
def test_masks_that_leave_nothing_are_refused_by_the_law(
    version: Version, fields: dict[str, Any]
) -> None:
    with pytest.raises(PsiError, match="no token has any probability"):
        version(**fields, excluded=range(12)).law()
    bare = {"epsilon": 0.0} if version is PsiTopK else {"log_tail": -math.inf}
    with pytest.raises(PsiError, match="no token has any probability"):
        version(**{**fields, **bare}, excluded=fields["ids"]).law()
    assert version(**fields, excluded=fields["ids"]).law().tail_mass == 1.0


NUMBERS = st.one_of(
    st.floats(), st.integers(), st.fractions(), st.none(), st.text(max_size=3), st.booleans()
)
ARRAYS = st.one_of(
    st.lists(st.integers(-(2**70), 2**70), max_size=4),
    st.lists(st.integers(-140, 140), max_size=4),
    st.lists(st.floats(), max_size=4),
    st.lists(st.booleans(), max_size=4),
    NUMBERS,
)
HOSTILE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["ids", "scores_q8", "excluded"], ARRAYS),
        **dict.fromkeys(["scale", "tau", "vocab_size"], NUMBERS),
    },
)


@BOTH
@given(change=HOSTILE, other=NUMBERS)
def test_anything_is_either_a_payload_or_an_error_that_says_so(
    version: Version, fields: dict[str, Any], change: dict[str, Any], other: Any
) -> None:
    last = "epsilon" if version is PsiTopK else "log_tail"
    try:
        psi = version(**{**fields, last: other, **change})
        probs = psi.law().head_probs
    except PsiError:
        return
    assert np.isfinite(probs).all()
    assert psi.size_bytes == len(psi.to_bytes())


@pytest.mark.parametrize(
    ("given_value", "held", "relative"),
    [
        (1e-6, 1.0133e-6, 0.0133),
        (5e-7, 4.768e-7, -0.046),
        (1e-7, 1.192e-7, 0.19),
        (3.1e-8, 5.96e-8, 0.92),
        (2.0**-25, 0.0, -1.0),
        (1e-8, 0.0, -1.0),
    ],
)
def test_float16_rounds_small_floors_coarsely_and_to_zero(
    given_value: float, held: float, relative: float
) -> None:
    epsilon = PsiTopK(**{**V1, "epsilon": given_value}).epsilon
    assert epsilon == pytest.approx(held, rel=1e-3)
    assert epsilon / given_value - 1 == pytest.approx(relative, abs=0.01)


@pytest.mark.parametrize(("tail", "survives"), [(0.0044, False), (0.0047, True)])
def test_a_vocabulary_of_151936_loses_its_tail_in_version_1_only(
    tail: float, survives: bool
) -> None:
    """V 2**-25 = 0.45 % at V = 151,936."""
    vocab_size, head = 151_936, 64
    p = np.full(vocab_size, tail / (vocab_size - head))
    p[:head] = (1 - tail) / head
    one, two = craft_psi(p, head).law(), craft_relative_psi(p, head).law()
    assert (one.tail_mass > 0) is survives
    assert bool(np.isfinite(one.log_probs_of([vocab_size - 1])).all()) is survives
    assert two.tail_mass == pytest.approx(tail, rel=1e-5)


@pytest.mark.parametrize("kind", [PsiError, GateError, MixingError, MissingExtraError])
def test_errors_survive_pickling(kind: type[TSDError]) -> None:
    import pickle

    copy = pickle.loads(pickle.dumps(kind("what is wrong")))
    assert type(copy) is kind
    assert str(copy) == "what is wrong"
