# SPDX-License-Identifier: Apache-2.0
"""Files of proposers: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qr_sampler_tsd import craft_relative_psi
from qr_sampler_tsd.errors import ProposerError, ProposerFileError
from qr_sampler_tsd.proposers import (
    BigramProposer,
    HeadProposer,
    HeadWeights,
    OracleProposer,
    Proposer,
    load_proposer,
    save_proposer,
)

V = 12
ROWS = np.random.default_rng(2).dirichlet(np.full(V, 0.5), size=V)


def bigram() -> BigramProposer:
    return BigramProposer.from_payloads(
        craft_relative_psi(ROWS.mean(axis=0), 3), {5: craft_relative_psi(ROWS[5], 4)}
    )


def head() -> HeadProposer:
    first = HeadWeights.initial(ROWS[0], context_tokens=2, width=3, buckets=5, rng=1)
    return HeadProposer(first, 4, tau=0.75)


MAKERS = pytest.mark.parametrize("make", [bigram, head])


@MAKERS
def test_round_trip(make: Callable[[], Proposer[Any]], tmp_path: Path) -> None:
    proposer, path = make(), tmp_path / "proposer.npz"
    save_proposer(path, proposer)
    loaded = load_proposer(str(path))
    assert type(loaded) is type(proposer)
    for tokens in ([5], [1, 2], [3, 4, 5]):
        expected = proposer.psi(proposer.start(tokens))
        assert loaded.psi(loaded.start(tokens)).to_bytes() == expected.to_bytes()
    assert list(tmp_path.iterdir()) == [path]


@MAKERS
def test_numpy_reads_the_file_without_pickle(
    make: Callable[[], Proposer[Any]], tmp_path: Path
) -> None:
    save_proposer(tmp_path / "p.npz", make())
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        assert archive["kind"].item() in (b"bigram", b"head")
        assert archive["format_version"].item() == 2
        assert np.isnan(archive["temperature"])


def test_the_same_proposer_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_proposer(tmp_path / name, head())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_oracle_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ProposerError, match="OracleProposer cannot be saved"):
        save_proposer(tmp_path / "p.npz", OracleProposer(lambda _: ROWS[0], V, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.npz"
    save_proposer(path, head())
    earlier = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="no space"):
        save_proposer(path, bigram())
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def members_of(proposer: Proposer[Any], tmp_path: Path) -> dict[str, bytes]:
    save_proposer(tmp_path / "good.npz", proposer)
    with zipfile.ZipFile(tmp_path / "good.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def claiming(shape: str, descr: str = "<f4") -> bytes:
    """An array whose header promises more than follows."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0\0\0\0"


def refused(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ProposerFileError) as caught:
        load_proposer(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("kind.npy", npy(np.array(b"medusa")), "the kind b'medusa'"),
        ("kind.npy", npy(np.array(b"x" * 33)), "of text or numbers"),
        ("kind.npy", npy(np.array("bigram")), "of text or numbers"),
        ("kind.npy", npy(np.array(7)), "the kind 7"),
        ("kind.npy", npy(np.array([b"bigram"])), "no single value 'kind'"),
        ("format_version.npy", npy(np.array(3)), "format version 3"),
        ("temperature.npy", npy(np.array(-1.0)), "temperature=-1.0 must be"),
        ("temperature.npy", npy(np.array(np.inf)), "temperature=inf must be"),
        ("temperature.npy", npy(np.array(1)), "temperature=1 must be a float"),
        ("format_version.npy", npy(np.array(b"1")), "format version b'1'"),
        ("k.npy", npy(np.array(0)), "k=0"),
        ("k.npy", npy(np.array([4, 4])), "no single value 'k'"),
        ("k.npy", npy(np.array(b"nine")), "k=b'nine'"),
        ("tau.npy", npy(np.array(np.nan)), "tau"),
        ("output.npy", npy(np.ones((V, 3))), "output is float64"),
        ("output.npy", npy(np.full((V, 3), np.inf, np.float32)), "not finite"),
        ("output.npy", npy(np.ones((V, 2), np.float32)), "do not fit"),
        ("output.npy", npy(np.asfortranarray(np.ones((V, 3), np.float32))), "of text or numbers"),
        ("output.npy", npy(np.array([{}]), allow_pickle=True), "of text or numbers"),
        ("output.npy", claiming("(1000000000000,)"), "4 bytes for"),
        ("output.npy", claiming("(-1, -1)"), "of text or numbers"),
        ("output.npy", claiming("(1,)", "|V4"), "of text or numbers"),
        ("output.npy", b"no array at all", "of text or numbers"),
        ("output.npy", b"\x93NUMPY\x02\x00", "of text or numbers"),
        ("output.npy", b"\x93NUMPY\x01\x00\xff\xff{", "of text or numbers"),
        ("output.npy", claiming("(" * 9000), "of text or numbers"),
        ("surplus.npy", npy(np.array(1)), "its arrays are"),
        ("surplus.txt", b"hello", "no .npy"),
    ],
)
def test_hostile_members_are_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    members = members_of(head(), tmp_path)
    assert words in refused(tmp_path / "bad.npz", {**members, name: data})


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("rows.npy", npy(np.full(V, 7, np.int32)), "rows name payloads"),
        ("rows.npy", npy(np.zeros(V - 1, np.int32)), "vocabulary"),
        ("offsets.npy", npy(np.array([0, 1], np.int64)), "run from 0"),
        ("offsets.npy", npy(np.zeros(0, np.int64)), "filled vector"),
        ("payloads.npy", npy(np.full(63, 255, np.uint8)), "vocab_size=-1"),
        ("payloads.npy", npy(np.zeros(63, np.float32)), "payloads must be"),
    ],
)
def test_hostile_tables_are_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    members = members_of(bigram(), tmp_path)
    assert len(np.load(io.BytesIO(members["payloads.npy"]))) == 63
    assert words in refused(tmp_path / "bad.npz", {**members, name: data})


def test_hostile_archives_are_refused(tmp_path: Path) -> None:
    members = members_of(head(), tmp_path)
    bad = tmp_path / "bad.npz"
    assert "compressed" in refused(bad, members, zipfile.ZIP_DEFLATED)
    many = {f"{number}.npy": npy(np.array(1)) for number in range(17)}
    assert "17 members" in refused(bad, many)
    assert "no single value 'kind'" in refused(bad, {})
    for content in (b"", b"not an archive", pickle.dumps({"kind": "head"})):
        bad.write_bytes(content)
        with pytest.raises(ProposerFileError, match=r"bad\.npz"):
            load_proposer(bad)
    with pytest.raises(ProposerFileError, match=r"absent\.npz"):
        load_proposer(tmp_path / "absent.npz")
    with pytest.raises(ProposerFileError, match="more than the 100 allowed"):
        load_proposer(tmp_path / "good.npz", max_bytes=100)


def test_a_member_that_appears_twice_is_refused(tmp_path: Path) -> None:
    members = members_of(head(), tmp_path)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("k.npy", members["k.npy"])
    with pytest.raises(ProposerFileError, match="twice"):
        load_proposer(tmp_path / "bad.npz")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 10**9), value=st.integers(0, 255), length=st.none() | st.integers(0))
def test_damage_is_refused_or_harmless(
    tmp_path: Path, place: int, value: int, length: int | None
) -> None:
    good = tmp_path / "good.npz"
    save_proposer(good, bigram())
    data = bytearray(good.read_bytes())
    data[place % len(data)] = value
    (tmp_path / "bad.npz").write_bytes(data if length is None else data[: length % len(data)])
    try:
        loaded = load_proposer(tmp_path / "bad.npz")
    except ProposerFileError:
        return
    # Some bytes of an archive decide nothing.
    assert loaded.psi(loaded.start([5])) == bigram().psi(5)


def test_errors_pickle() -> None:
    for error in (ProposerError("a"), ProposerFileError("b")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))
        assert isinstance(again, ValueError)


@MAKERS
def test_the_temperature_comes_back(make: Callable[[], Proposer[Any]], tmp_path: Path) -> None:
    proposer = make()
    proposer._temperature = 0.7  # type: ignore[attr-defined]
    save_proposer(tmp_path / "p.npz", proposer)
    assert load_proposer(tmp_path / "p.npz").temperature == 0.7


@MAKERS
def test_files_of_version_1_have_no_temperature(
    make: Callable[[], Proposer[Any]], tmp_path: Path
) -> None:
    members = members_of(make(), tmp_path)
    del members["temperature.npy"]
    members["format_version.npy"] = npy(np.array(1))
    with zipfile.ZipFile(tmp_path / "old.npz", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert load_proposer(tmp_path / "old.npz").temperature is None
