# SPDX-License-Identifier: Apache-2.0
"""Lines that others have stamped cannot be written anew; the audit says since and until when."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("rfc3161_client", reason="the extra anchors is not installed")

from qr_sampler_cli.audit.anchors.drand import CHAIN, Round
from qr_sampler_cli.audit.anchors.timestamps import TimeStampAuthorities
from qr_sampler_cli.audit.auditor import audit_runs
from qr_sampler_cli.audit.files import ledgers_of
from qr_sampler_cli.audit.rungs.anchors import OutsideWitnesses
from qr_sampler_cli.audit.rungs.witnesses import Evidence
from qr_sampler_cli.main import app
from qr_sampler_cli.testing.time_stamping import LocalAuthority, has_openssl

pytestmark = pytest.mark.skipif(not has_openssl(), reason="this machine has no openssl")

PROPERTY = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ROUND = {
    "round": 1000,
    "signature": (
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125"
        "e342b73a8dd2bacbe47e4b6b63ed5e39"
    ),
}
SINCE = "2023-08-23 15:59:24 UTC"
"""When it was published."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    return LocalAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def trusted(authority: LocalAuthority) -> TimeStampAuthorities:
    return TimeStampAuthorities(authority.root)


@pytest.fixture
def rung(trusted: TimeStampAuthorities) -> Callable[..., Any]:
    """Audits files of one run, and returns rung 5."""

    def audited(*paths: Path, **more: Any) -> Any:
        outside = OutsideWitnesses(trusted, **more)
        (result,) = audit_runs(ledgers_of(paths), evidence=Evidence(outside=outside))
        return result.rungs[4]

    return audited


def stamped(authority: LocalAuthority, path: Path, numbers: Sequence[int]) -> Path:
    """Writes anchors of lines of *path*, as the page about the ledger specifies them."""
    folder = path.with_suffix(".anchors")
    folder.mkdir(exist_ok=True)
    lines = path.read_bytes().split(b"\n")[:-1]
    for n in numbers:
        head = hashlib.sha256(lines[n]).hexdigest()
        name = f"20261130T120000.000000Z-{n:012}"
        (folder / f"{name}.tsr").write_bytes(authority.stamp(head))
        told = {"kind": "tsa", "ledger": path.name, "n": n, "lines": n + 1, "head": head}
        (folder / f"{name}.json").write_text(json.dumps({**told, "token": f"{name}.tsr"}))
    return folder


def of_times(rung: Any) -> list[str]:
    """Returns what cannot be said of times."""
    return [what for what in rung.unsaid if "signature" not in what]


def test_lines_are_bracketed(run: Any, save: Any, rung: Any, authority: LocalAuthority) -> None:
    made = run(1)
    made.add("anchor", chain=Round(**ROUND).as_dict()["chain"], **ROUND, wall_time_ns=made.wall)
    path = save(made.whole())
    last = path.read_bytes().count(b"\n") - 1
    stamped(authority, path, [5, last])
    found = rung(path)
    assert found.failures == []
    first, second = found.notes
    assert f"lines n 0 to 5 of {path.name} were written after a time that nothing tells" in first
    assert f"lines n 6 to {last} of {path.name} were written after {SINCE} and before 20" in second
    assert "says CN=Local Time" in second
    assert of_times(found) == [
        "after when the first lines were written: no round of a beacon is before them"
    ]


def test_a_seal_tells_since_when(
    run: Any, chain: Any, save: Any, rung: Any, authority: LocalAuthority
) -> None:
    lines = run(1).whole()
    lines[0]["seal"] = "ab" * 32
    path = save(chain(lines, "ab" * 32))
    stamped(authority, path, [path.read_bytes().count(b"\n") - 1])
    found = rung(path, seal=("ab" * 32, Round(**ROUND)))
    assert (found.failures, of_times(found)) == ([], [])
    assert f"were written after {SINCE} and before 20" in found.notes[0]
    assert "name its plan with --seal" in str(of_times(rung(path)))
    assert "name its plan with --seal" in str(of_times(rung(path, seal=("cd" * 32, None))))


def test_a_ledger_without_a_seal_is_not_taken_for_a_sealed_one(
    run: Any, save: Any, rung: Any
) -> None:
    found = rung(save(run(1).whole()), seal=("ab" * 32, Round(**ROUND)))
    assert "whether the plan of --seal was there: no seal is in genesis" in found.unsaid


def test_lines_behind_the_last_stamp_are_not_witnessed(
    run: Any, save: Any, rung: Any, authority: LocalAuthority
) -> None:
    path = save(run(1).whole())
    lines = path.read_bytes().count(b"\n")
    stamped(authority, path, [3])
    assert f"before when the last {lines - 4} lines were written" in str(of_times(rung(path)))


def test_without_anchors_nothing_is_witnessed(run: Any, save: Any, rung: Any) -> None:
    (unsaid,) = of_times(rung(save(run(1).whole())))
    assert "without anchors (time stamps, a beacon), whoever holds it" in unsaid


@pytest.mark.parametrize("after", [True, False])
def test_a_cut_behind_an_anchor(
    run: Any, save: Any, rung: Any, authority: LocalAuthority, after: bool
) -> None:
    path = save(run(1).whole())
    lines = path.read_bytes().splitlines(keepends=True)
    stamped(authority, path, [10])
    # A cut after the line that was stamped takes nothing that is witnessed.
    path.write_bytes(b"".join(lines[: 11 if after else 10]))
    found = rung(path)
    assert found.failed == (0 if after else 1)
    if not after:
        assert "has stamped line n 10 of it before 20" in found.failures[0].what
        assert "its end was cut off" in found.failures[0].what


def test_a_replaced_tail(run: Any, save: Any, rung: Any, authority: LocalAuthority) -> None:
    ours, theirs = run(1).whole(), run(1).whole()
    for line in theirs[20:]:
        line["wall_time_ns"] = line.get("wall_time_ns", 0) + 1
    path = save(ours)
    stamped(authority, path, [10, 30])
    save(theirs)
    found = rung(path)
    assert [failure.where for failure in found.failures] == [f"{path}:31"]
    assert "it or a line before it was changed since" in found.failures[0].what


def changed(value: Any) -> Any:
    if isinstance(value, str):
        return value + "0"
    if isinstance(value, (int, float)):
        return value + 1
    return "changed"


@PROPERTY
@given(data=st.data())
def test_no_edit_survives_with_a_recomputed_chain(
    run: Any, save: Any, rung: Any, authority: LocalAuthority, data: Any
) -> None:
    lines = run(3).whole(sequences=2, steps=2)
    path = save(lines)
    if not path.with_suffix(".anchors").exists():
        stamped(authority, path, [len(lines) - 1])
    what = data.draw(st.sampled_from(["edit", "delete", "insert", "swap", "cut"]))
    index = data.draw(st.integers(0, len(lines) - 2))
    tampered = [dict(line) for line in lines]
    if what == "edit":
        line = tampered[index]
        field = data.draw(st.sampled_from(sorted(line.keys() - {"kind"})))
        line[field] = changed(line[field])
    elif what == "delete":
        del tampered[index]
    elif what == "insert":
        tampered.insert(index, dict(tampered[data.draw(st.integers(0, len(lines) - 1))]))
    elif what == "swap":
        other = data.draw(st.integers(index + 1, len(lines) - 1))
        tampered[index], tampered[other] = tampered[other], tampered[index]
    else:
        del tampered[data.draw(st.integers(1, len(lines) - 1)) :]
    before = path.read_bytes()
    with contextlib.suppress(UnicodeEncodeError):
        save(tampered)
        if path.read_bytes() != before:
            assert rung(path).failed, what


def test_other_stamps_are_refused(
    run: Any, save: Any, rung: Any, authority: LocalAuthority, tmp_path: Path
) -> None:
    path = save(run(1).whole())
    folder = stamped(authority, path, [10])
    (token,) = folder.glob("*.tsr")
    token.write_bytes(authority.stamp("00" * 32))
    assert "is not valid: it stamps 0000" in rung(path).failures[0].what
    other = LocalAuthority(tmp_path / "other")
    stamped(other, path, [10])
    assert "verifying certificates" in rung(path).failures[0].what
    token.write_bytes(bytes(2**16 + 1))
    assert "more than 65536 bytes" in rung(path).failures[0].what
    token.unlink()
    found = rung(path)
    assert found.failures == []
    assert f"what {token.name} has stamped: No such file" in str(found.unsaid)
    token.mkdir()
    assert "it is no regular file" in rung(path).failures[0].what


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"kind":"tsa"}', '{"kind":"tsa","n":-1}', "[" * 99_999, "x" * 20_000]
    + [
        json.dumps({"kind": "tsa", "n": 1, "head": "0" * 64, "token": token})
        for token in ("../key.tsr", "a/b", "", 7, "x" * 101)
    ],
)
def test_files_that_are_no_anchors_witness_nothing(
    run: Any, save: Any, rung: Any, content: str
) -> None:
    path = save(run(1).whole())
    folder = path.with_suffix(".anchors")
    folder.mkdir()
    (folder / "bad.json").write_text(content)
    found = rung(path)
    assert found.failures == []
    assert "without anchors (time stamps, a beacon)" in str(found.unsaid)


def test_a_round_that_was_never_published_fails(run: Any, save: Any, rung: Any) -> None:
    made = run(1)
    told = {**Round(**ROUND).as_dict(), "round": 1001}
    del told["randomness"]
    made.add("anchor", **told, wall_time_ns=made.wall)
    found = rung(save(made.whole()))
    assert "the beacon has not published it" in found.failures[0].what


def test_recorded_clocks_are_compared_with_others(
    run: Any, save: Any, rung: Any, authority: LocalAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(1)
    made.now += 10 * 365 * 86_400 * 10**9
    path = save(made.whole())
    stamped(authority, path, [path.read_bytes().count(b"\n") - 1])
    assert "a clock is ahead of the time stamp over it" in str(rung(path).unsaid)


def test_a_later_file_witnesses_the_one_that_it_continues(
    run: Any, chain: Any, save: Any, rung: Any, authority: LocalAuthority
) -> None:
    first, second = run(1), run(2)
    row = first.begin("row")
    first.step([row], discarded=False)
    first.close(continued_in="second_0002.jsonl")
    told = chain(first.lines)
    head = hashlib.sha256(told[-1]).hexdigest()
    second.lines[0]["continues"] = {"file": "first.jsonl", "lines": len(told), "head": head}
    paths = [save(told, "first.jsonl"), save(chain(second.lines, head), "second_0002.jsonl")]
    stamped(authority, paths[1], [1])
    found = rung(*paths)
    assert found.failures == []
    assert "lines from n 0 of first.jsonl to n 1 of second_0002.jsonl were" in found.notes[0]
    assert "time stamp is over them" not in str(found.unsaid)


def test_a_later_stamp_says_nothing_of_lines_that_it_does_not_cover(
    run: Any, chain: Any, save: Any, rung: Any, authority: LocalAuthority
) -> None:
    """The file between them is not here, so that nothing ties the first to the third."""
    first, third = run(1), run(2)
    row = first.begin("row")
    first.step([row], discarded=False)
    first.add("anchor", chain=CHAIN, **ROUND, wall_time_ns=first.wall)
    first.close(continued_in="x_0002.jsonl")
    third.lines[0]["continues"] = {"file": "x_0002.jsonl", "lines": 7, "head": "12" * 32}
    paths = [
        save(chain(first.lines), "x.jsonl"),
        save(chain(third.lines, "12" * 32), "x_0003.jsonl"),
    ]
    stamped(authority, paths[1], [1])
    found = rung(*paths)
    assert found.failures == []
    (note,) = found.notes
    assert "lines n 0 to 1 of x_0003.jsonl were written after a time that nothing tells" in note
    (untied,) = [each for what, each in found.unsaid.items() if "no stamped line names" in what]
    assert untied.count == len(first.lines)


def test_a_stamp_says_nothing_of_lines_before_a_redacted_one(
    run: Any, save: Any, rung: Any, authority: LocalAuthority
) -> None:
    """A line with any digest can stand between a past made anew and a head that was stamped."""
    made = run(1)
    made.add("anchor", chain=CHAIN, **ROUND, wall_time_ns=made.wall)
    path = save(made.whole())
    lines = path.read_bytes().split(b"\n")[:-1]
    last = len(lines) - 1
    stamped(authority, path, [last])
    hidden = json.loads(lines[last - 2])
    told = {"kind": "redacted", "n": last - 2, "prev": hidden["prev"]}
    told["sha256"] = hashlib.sha256(lines[last - 2]).hexdigest()
    told |= {"of": hidden["kind"], "fields": {}}
    lines[last - 2] = json.dumps(told, separators=(",", ":")).encode()
    path.write_bytes(b"\n".join([*lines, b""]))
    found = rung(path)
    assert found.failures == []
    (note,) = found.notes
    where = f"lines n {last - 2} to {last} of {path.name}"
    assert f"{where} were written after a time that nothing tells" in note
    assert "no stamped line names" in str(found.unsaid)


def test_a_deposit_is_compared_as_well(
    run: Any, save: Any, authority: LocalAuthority, tmp_path: Path
) -> None:
    lines = run(1).whole()
    path = save(lines)
    deposit = tmp_path / "deposit"
    deposit.mkdir()
    folder = stamped(authority, path, [len(lines) - 1])
    shutil.move(folder, deposit / folder.name)

    def invoke(*more: object) -> Any:
        arguments = ["audit", str(path), "--tsa-certificates", str(authority.root)]
        return CliRunner().invoke(app, [*arguments, *map(str, more)])

    lines[30]["wall_time_ns"] = 1
    save(lines)
    told = invoke("--anchors", deposit)
    assert told.exit_code == 1
    assert "was changed since" in told.output
    assert "whoever holds it could have computed" in invoke().output
    assert invoke("--anchors", path).exit_code == 2
    seal = tmp_path / "seal.json"
    for content, words in (("{", "it is no sealed plan"), ("", "it is no sealed plan")):
        seal.write_text(content)
        assert words in invoke("--seal", seal).output
    seal.write_text(json.dumps({"witness": ROUND}))
    assert "whoever holds it could have computed" in invoke("--seal", seal).output
    seal.write_text(json.dumps({"witness": {"round": 0}}))
    assert "is no number of a round" in invoke("--seal", seal).output


def test_without_the_package_the_extra_is_named(
    run: Any, save: Any, authority: LocalAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    lines = run(1).of_every_kind()
    path = save(lines)
    stamped(authority, path, [len(lines) - 1])
    from qr_sampler_cli.audit.anchors import drand

    drand._is_signed.cache_clear()
    for name in ("rfc3161_client", "py_ecc", "py_ecc.bls.point_compression"):
        monkeypatch.setitem(sys.modules, name, None)
    arguments = ["audit", str(path), "--tsa-certificates", str(authority.root)]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0
    assert told.output.count("pip install './packages/qr-sampler[anchors]'") >= 2
