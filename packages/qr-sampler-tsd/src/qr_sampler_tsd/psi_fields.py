# SPDX-License-Identifier: Apache-2.0
"""What all versions of the payload check, and what users of a payload may rely on."""

from __future__ import annotations

import struct
from numbers import Integral, Real
from typing import ClassVar, Final, Protocol, TypeGuard, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler_tsd._typing import IdArray, ScoreCodes, TokenArray
from qr_sampler_tsd.errors import PsiError
from qr_sampler_tsd.exclusion import sorted_unique_ids
from qr_sampler_tsd.law import HeadTailLaw

__all__ = [
    "Payload",
    "Psi",
    "as_stored",
    "checked_code",
    "checked_codes",
    "checked_exclusion",
    "checked_ids",
    "checked_vocab_size",
    "nothing_excluded",
    "rounded",
]

_LARGEST_VOCABULARY: Final = 2**31 - 1

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Payload = TypeVar("_Payload", bound="Payload")


def _read_only(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    array.flags.writeable = False
    return array


def _is_integer(value: object) -> TypeGuard[Integral]:
    """Whether *value* is an integer and no bool, which Python counts among them."""
    return isinstance(value, Integral) and not isinstance(value, bool)


class Payload:
    """What all versions have in common: the layout of the bytes, and equality.

    The bytes are the ids and the codes of the head, then :attr:`FIXED`, little-endian, unpadded.
    Payloads are equal when version, bytes and exclusion are.
    """

    __slots__ = ()

    FIXED: ClassVar[struct.Struct]
    """Layout of what follows the head."""
    FIXED_FIELDS: ClassVar[tuple[str, ...]]
    """The fields in it, V the last."""

    ids: IdArray
    scores_q8: ScoreCodes
    excluded: TokenArray

    @property
    def size_bytes(self) -> int:
        """Length of the bytes: 5 K and what :attr:`FIXED` takes."""
        return 5 * self.ids.size + self.FIXED.size

    def to_bytes(self) -> bytes:
        """Returns the payload as it travels; an exclusion travels beside it."""
        fixed = self.FIXED.pack(*(getattr(self, name) for name in self.FIXED_FIELDS))
        return self.ids.astype("<i4").tobytes() + self.scores_q8.tobytes() + fixed

    @classmethod
    def from_bytes(cls: type[_Payload], data: bytes, excluded: ArrayLike = ()) -> _Payload:
        """Returns the payload that :meth:`to_bytes` has written; K follows from the length.

        Raises:
            PsiError: When the length fits no K >= 1, or a value is forbidden.
        """
        count = _tokens_in(len(data), cls.FIXED.size)
        fixed = dict(zip(cls.FIXED_FIELDS, cls.FIXED.unpack_from(data, 5 * count), strict=True))
        head = {
            "ids": np.frombuffer(data, "<i4", count),
            "scores_q8": np.frombuffer(data, np.int8, count, offset=4 * count),
        }
        excluded = checked_exclusion(excluded, fixed["vocab_size"])
        # Every version is a dataclass of these fields.
        return cls(**head, **fixed, excluded=excluded)  # type: ignore[call-arg]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[bytes, bytes]:
        return self.to_bytes(), self.excluded.tobytes()


def nothing_excluded() -> TokenArray:
    """Returns the exclusion of no token."""
    return _read_only(np.empty(0, dtype=np.int64))


class Psi(Protocol):
    """A payload of any version."""

    @property
    def ids(self) -> IdArray:
        """Shape ``(K,)``: the tokens of the head, best first."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""

    @property
    def size_bytes(self) -> int:
        """Length of :meth:`to_bytes`."""

    def law(self) -> HeadTailLaw:
        """Returns F(psi)."""

    def to_bytes(self) -> bytes:
        """Returns the payload as it travels; an exclusion travels beside it."""


def checked_vocab_size(value: object) -> int:
    """Returns *value* as an int.

    Raises:
        PsiError: When it is no integer from 1 to 2**31 - 1, which is all that an int32 id reaches.
    """
    if not _is_integer(value) or not 1 <= int(value) <= _LARGEST_VOCABULARY:
        raise PsiError(f"vocab_size={value!r} must be an integer from 1 to {_LARGEST_VOCABULARY}")
    return int(value)


def checked_ids(ids: ArrayLike, vocab_size: int) -> IdArray:
    """Returns a read-only copy of *ids*.

    Raises:
        PsiError: When there are none, one repeats or is outside [0, *vocab_size*).
    """
    if not sorted_unique_ids(ids, vocab_size, "the ids").size:
        raise PsiError("a payload needs at least one id")
    return _read_only(np.array(ids, dtype=np.int32))


def checked_codes(codes: ArrayLike, count: int) -> ScoreCodes:
    """Returns a read-only copy of *codes*.

    Raises:
        PsiError: When there are not *count*, or one is no integer from -128 to 127.
    """
    given = np.asarray(codes)
    if given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise PsiError(
            f"{count} ids need as many integer scores, got {given.dtype} of shape {given.shape}"
        )
    for code in (given.min(), given.max()):
        checked_code(code, "a score code")
    return _read_only(given.astype(np.int8))


def checked_code(value: object, name: str) -> int:
    """Returns *value* as an int.

    Raises:
        PsiError: When it is no integer from -128 to 127.
    """
    if not _is_integer(value) or not -128 <= int(value) <= 127:
        raise PsiError(f"{name} is {value!r}; it must be an integer from -128 to 127")
    return int(value)


def checked_exclusion(excluded: ArrayLike, vocab_size: int) -> TokenArray:
    """Returns *excluded* in ascending order, read-only.

    Raises:
        PsiError: When one repeats or is outside [0, *vocab_size*).
    """
    return _read_only(sorted_unique_ids(excluded, vocab_size, "the excluded ids"))


def as_stored(value: object, dtype: type[np.floating], name: str) -> float:
    """Returns *value* as *dtype* holds it, ``inf`` or NaN included.

    Raises:
        PsiError: When it is no real number, or an integer beyond all floats.
    """
    if not isinstance(value, Real):
        raise PsiError(f"{name}={value!r} is no number")
    try:
        with np.errstate(over="ignore"):
            return float(dtype(value))
    except OverflowError as error:
        raise PsiError(f"{name} is an integer that no float holds") from error


def rounded(value: object, dtype: type[np.floating], name: str, *, positive: bool) -> float:
    """Returns *value* as the payload holds it.

    Args:
        value: A real number.
        dtype: float16 or float32.
        name: How an error calls it.
        positive: Whether 0 is forbidden, also the 0 that a small number is rounded to.

    Raises:
        PsiError: When it is no number, negative, forbidden, or too large for *dtype*.
    """
    held = as_stored(value, dtype, name)
    if not np.isfinite(held) or held < 0 or (positive and held == 0):
        largest = float(np.finfo(dtype).max)
        bound = "above 0" if positive else "at least 0"
        raise PsiError(
            f"{name}={value!r} is {held} in {dtype.__name__}; it must be {bound} and at most "
            f"{largest:g} there"
        )
    return held


def _tokens_in(length: int, fixed_bytes: int) -> int:
    """Returns K of a payload of 5 K + *fixed_bytes* bytes.

    Raises:
        PsiError: When *length* is not of that form with K >= 1.
    """
    count, rest = divmod(length - fixed_bytes, 5)
    if rest or count < 1:
        raise PsiError(f"a payload has 5 K + {fixed_bytes} bytes with K >= 1, got {length} bytes")
    return count
