# SPDX-License-Identifier: Apache-2.0
"""Proposers in files: ``.npz`` archives, read without pickle and checked before they are used.

An archive holds ``kind`` (bytes), ``format_version`` (an integer), ``temperature`` (of what was
learned, NaN where it is not known) and the arrays of that kind.
``numpy.load`` reads it, too. Members are stored, not compressed, so that none can grow beyond the
file that it came in.
"""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qr_sampler_tsd.errors import ProposerError, ProposerFileError
from qr_sampler_tsd.proposers.base import Proposer
from qr_sampler_tsd.proposers.bigram import BigramProposer
from qr_sampler_tsd.proposers.head import HeadProposer, HeadWeights

__all__ = ["FORMAT_VERSION", "load_proposer", "save_proposer"]

FORMAT_VERSION: Final = 2
"""What is written. Version 1, which is read, too, has no temperature."""

_LARGEST_BYTES: Final = 2**32
_MOST_MEMBERS: Final = 16
_SUFFIX: Final = ".npy"
_TYPES: Final = frozenset(
    {"|u1", "<i4", "<i8", "<f4", "<f8"} | {f"|S{length}" for length in range(1, 33)}
)
# What numpy.lib.format writes. Its reader evaluates headers as Python, which a hostile one can fail
# in many ways.
_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<type>[|<]\w{1,4})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9, ]{0,64})\), \} *\n",
    re.DOTALL,
)

# ValueError is the root of what proposers and payloads raise; the others are how zipfile reports
# archives that are damaged in one way or another.
_DAMAGE: Final = (
    ValueError,
    OSError,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
)

_Arrays = Mapping[str, NDArray[Any]]
_Reader = Callable[[_Arrays, "float | None"], Proposer[Any]]


def save_proposer(path: str | Path, proposer: Proposer[Any]) -> None:
    """Writes *proposer* to *path*, which appears whole or not at all.

    Only its owner may read it, as is the rule for temporary files.

    Raises:
        ProposerError: When it is of a kind that cannot be saved, as an oracle.
        OSError: When the file cannot be written.
    """
    kind, arrays = _arrays_of(proposer)
    temperature = math.nan if proposer.temperature is None else proposer.temperature
    header = {
        "kind": np.array(kind.encode()),
        "format_version": np.array(FORMAT_VERSION, np.int64),
        "temperature": np.array(temperature, np.float64),
    }
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
        kind, version = _scalar(arrays, "kind"), _scalar(arrays, "format_version")
        if version not in _HEADERS:
            raise _RefusedError(
                f"it has the format version {version!r} and this program reads {list(_HEADERS)}; "
                "make the file again"
            )
        if kind not in _READERS:
            raise _RefusedError(f"it holds the kind {kind!r}, not one of {list(_READERS)}")
        names, read = _READERS[kind]
        expected = names | _HEADERS[version]
        if set(arrays) != expected:
            raise _RefusedError(f"its arrays are {sorted(arrays)}, not {sorted(expected)}")
        return read(arrays, _temperature(arrays))
    except _DAMAGE as error:
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


def _temperature(arrays: _Arrays) -> float | None:
    if "temperature" not in arrays:
        return None
    temperature = _scalar(arrays, "temperature")
    if not isinstance(temperature, float):
        raise _RefusedError(f"temperature={temperature!r} must be a float")
    return None if math.isnan(temperature) else temperature


def _bigram(arrays: _Arrays, temperature: float | None) -> BigramProposer:
    return BigramProposer(arrays["payloads"], arrays["offsets"], arrays["rows"], temperature)


def _head(arrays: _Arrays, temperature: float | None) -> HeadProposer:
    for name in _WEIGHTS:
        if arrays[name].dtype != np.float32:
            raise _RefusedError(f"{name} is {arrays[name].dtype}, not float32")
    k, tau = _scalar(arrays, "k"), _scalar(arrays, "tau")
    if not (isinstance(k, int) and isinstance(tau, float)):
        raise _RefusedError(f"k={k!r} must be an integer and tau={tau!r} a float")
    weights = HeadWeights(**{name: arrays[name] for name in _WEIGHTS})
    return HeadProposer(weights, k, tau=tau, temperature=temperature)


_HEADERS: Final[dict[object, frozenset[str]]] = {
    1: frozenset({"kind", "format_version"}),
    FORMAT_VERSION: frozenset({"kind", "format_version", "temperature"}),
}
_WEIGHTS: Final = ("tables", "hidden_bias", "output", "output_bias")
_READERS: Final[dict[object, tuple[frozenset[str], _Reader]]] = {
    b"bigram": (frozenset({"payloads", "offsets", "rows"}), _bigram),
    b"head": (frozenset({*_WEIGHTS, "k", "tau"}), _head),
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
    data = archive.read(member)
    header = _HEADER.match(data)
    if header is None or header["type"].decode() not in _TYPES:
        raise _RefusedError(
            f"the array {member.filename!r} is none of version 1.0, in C order, of text or numbers"
        )
    dtype = np.dtype(header["type"].decode())
    shape = tuple(int(side) for side in re.findall(rb"\d+", header["shape"]))
    body = data[header.end() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise _RefusedError(
            f"the array {member.filename!r} has {len(body)} bytes for {shape} of {dtype}"
        )
    return np.frombuffer(body, dtype).reshape(shape)
