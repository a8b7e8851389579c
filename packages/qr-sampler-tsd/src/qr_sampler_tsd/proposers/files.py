# SPDX-License-Identifier: Apache-2.0
"""Proposers in files: ``.npz`` archives, read without pickle and checked before they are used.

An archive holds ``kind`` (text), ``format_version`` (an integer) and the arrays of that kind. It is
what ``numpy.load`` reads, too. Members are stored, not compressed, so that none can grow beyond the
file that it came in.
"""

from __future__ import annotations

import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from qr_sampler_tsd.errors import ProposerError, ProposerFileError, PsiError
from qr_sampler_tsd.proposers.base import Proposer
from qr_sampler_tsd.proposers.bigram import BigramProposer
from qr_sampler_tsd.proposers.head import HeadProposer, HeadWeights

__all__ = ["FORMAT_VERSION", "load_proposer", "save_proposer"]

FORMAT_VERSION: Final = 1

_LARGEST_BYTES: Final = 2**32
_MOST_MEMBERS: Final = 16
_LONGEST_TEXT: Final = 64
_SUFFIX: Final = ".npy"
_NUMBERS: Final = frozenset(np.dtype(name) for name in ("u1", "<i4", "<i8", "<f4", "<f8"))

_Arrays = Mapping[str, NDArray[Any]]


def save_proposer(path: str | Path, proposer: Proposer[Any]) -> None:
    """Writes *proposer* to *path*, which appears whole or not at all.

    Raises:
        ProposerError: When it is of a kind that cannot be saved, as an oracle.
        OSError: When the file cannot be written.
    """
    kind, arrays = _arrays_of(proposer)
    header = {"kind": np.array(kind), "format_version": np.array(FORMAT_VERSION, np.int64)}
    target = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for member, array in {**header, **arrays}.items():
                with archive.open(member + _SUFFIX, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_proposer(path: str | Path, *, max_bytes: int = _LARGEST_BYTES) -> Proposer[Any]:
    """Returns the proposer that :func:`save_proposer` has written to *path*.

    Args:
        path: The file; it may come from anyone.
        max_bytes: A larger file is refused before it is read.

    Raises:
        ProposerFileError: When it is missing, too large, damaged, of another kind or version, or
            holds values that no proposer has.
    """
    try:
        arrays = _read_archive(Path(path), max_bytes)
        kind, version = str(_scalar(arrays, "kind")), _scalar(arrays, "format_version")
        if version != FORMAT_VERSION:
            raise _RefusedError(
                f"it has the format version {version!r} and this program reads {FORMAT_VERSION}; "
                "make the file again"
            )
        if kind not in _READERS:
            raise _RefusedError(f"it holds the kind {kind!r}, not one of {sorted(_READERS)}")
        names, read = _READERS[kind]
        if set(arrays) != names | _HEADER:
            raise _RefusedError(f"its arrays are {sorted(arrays)}, not {sorted(names | _HEADER)}")
        return read(arrays)
    # EOFError, NotImplementedError and RuntimeError are how zipfile reports some damaged archives.
    except (
        _RefusedError,
        ProposerError,
        PsiError,
        OSError,
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise ProposerFileError(f"{path} is no proposer to use: {error}") from error


class _RefusedError(ValueError):
    """Why a file is refused."""


def _arrays_of(proposer: Proposer[Any]) -> tuple[str, dict[str, NDArray[Any]]]:
    if isinstance(proposer, BigramProposer):
        names = ("payloads", "offsets", "rows")
        return "bigram", {name: getattr(proposer, name) for name in names}
    if isinstance(proposer, HeadProposer):
        arrays = {name: getattr(proposer.weights, name) for name in _WEIGHTS}
        arrays["k"] = np.array(proposer.k, np.int64)
        arrays["tau"] = np.array(proposer.tau, np.float64)
        return "head", arrays
    raise ProposerError(f"a {type(proposer).__name__} cannot be saved; bigram tables and heads can")


def _bigram(arrays: _Arrays) -> BigramProposer:
    return BigramProposer(arrays["payloads"], arrays["offsets"], arrays["rows"])


def _head(arrays: _Arrays) -> HeadProposer:
    for name in _WEIGHTS:
        if arrays[name].dtype != np.float32:
            raise _RefusedError(f"{name} is {arrays[name].dtype}, not float32")
    k, tau = _scalar(arrays, "k"), _scalar(arrays, "tau")
    if not (isinstance(k, int) and isinstance(tau, float)):
        raise _RefusedError(f"k={k!r} must be an integer and tau={tau!r} a float")
    return HeadProposer(HeadWeights(**{name: arrays[name] for name in _WEIGHTS}), k, tau=tau)


_HEADER: Final = frozenset({"kind", "format_version"})
_WEIGHTS: Final = ("tables", "hidden_bias", "output", "output_bias")
_READERS: Final[dict[str, tuple[frozenset[str], Callable[[_Arrays], Proposer[Any]]]]] = {
    "bigram": (frozenset({"payloads", "offsets", "rows"}), _bigram),
    "head": (frozenset({*_WEIGHTS, "k", "tau"}), _head),
}


def _scalar(arrays: _Arrays, name: str) -> Any:
    if name not in arrays or arrays[name].ndim:
        raise _RefusedError(f"it has no single value {name!r}")
    return arrays[name].item()


def _read_archive(path: Path, max_bytes: int) -> dict[str, NDArray[Any]]:
    size = path.stat().st_size
    if size > max_bytes:
        raise _RefusedError(f"it has {size} bytes, more than the {max_bytes} allowed")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS or len({one.filename for one in members}) < len(members):
            raise _RefusedError(f"it holds {len(members)} members, or one of them twice")
        if sum(one.file_size for one in members) > size:
            raise _RefusedError("its members claim more bytes than the file has")
        return {one.filename.removesuffix(_SUFFIX): _read_array(archive, one) for one in members}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Returns the array of *member*; nothing is allocated on the word of its header."""
    if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(_SUFFIX):
        raise _RefusedError(f"its member {member.filename!r} is compressed or no {_SUFFIX}")
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file, member.filename)
        is_text = dtype.kind == "U" and dtype.itemsize <= 4 * _LONGEST_TEXT
        if fortran or not (dtype in _NUMBERS or is_text):
            raise _RefusedError(f"the array {member.filename!r} is of {dtype} or in Fortran order")
        data = file.read()
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise _RefusedError(
            f"the array {member.filename!r} has {len(data)} bytes for {shape} {dtype}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Returns what the header of a .npy member says of its array."""
    try:
        if np.lib.format.read_magic(file) == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
    except ValueError as error:
        raise _RefusedError(f"the array {name!r} has no readable header") from error
    raise _RefusedError(f"the array {name!r} is not of version 1.0 of its format")
