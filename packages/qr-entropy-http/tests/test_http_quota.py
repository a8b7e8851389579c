# SPDX-License-Identifier: Apache-2.0
"""No window of time holds more than a service allows: counted by the service, over restarts."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_entropy_http.exchange import Deadline
from qr_entropy_http.quota import Quota, QuotaError, QuotaStoreError
from qr_entropy_http.quota.quota import WINDOWS, Allowance
from qr_entropy_http.quota.store import QuotaStore
from qr_entropy_http.quota.tally import GRAINS, MOST_GRAINS, Tally
from qr_entropy_http.simulators import Simulator
from qr_entropy_http.source import HttpSource
from qr_sampler import ConfigError, EntropyUnavailableError

STEPS = st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(1, 50)), min_size=1, max_size=60)


def patience() -> Deadline:
    """Returns a deadline that no test reaches."""
    return Deadline(time.monotonic_ns() + 60 * 10**9)


@settings(max_examples=50)
@given(STEPS, st.integers(1, 100))
def test_no_window_holds_more_than_allowed(steps: list[tuple[float, int]], limit: int) -> None:
    """Against every half-open window that ends with an admission, summed one by one."""
    tally, now_s, admitted = Tally(limit, 60.0), 0.0, []
    for pause_s, amount in steps:
        now_s += pause_s
        if tally.wait_s(amount, now_s) == 0.0:
            tally.add(amount, now_s)
            admitted.append((now_s, amount))
    for end_s, _ in admitted:
        inside = [amount for at_s, amount in admitted if end_s - 60.0 < at_s <= end_s]
        assert sum(inside) <= limit
    assert len(tally.grains) <= GRAINS + 2


@settings(max_examples=50)
@given(STEPS, st.integers(1, 100))
def test_a_wait_is_long_enough_and_no_longer_than_a_grain_more(
    steps: list[tuple[float, int]], limit: int
) -> None:
    tally, now_s = Tally(limit, 60.0), 1e6
    for pause_s, amount in steps:
        now_s += pause_s
        wait_s = tally.wait_s(amount, now_s)
        if amount > limit:
            assert wait_s == math.inf
            continue
        assert wait_s <= 60.0 + 60.0 / GRAINS + 1e-6
        now_s += wait_s + 1e-6
        assert tally.wait_s(amount, now_s) == 0.0
        tally.add(amount, now_s)


def test_what_was_not_asked_for_is_taken_back() -> None:
    tally = Tally(10, 60.0)
    grain = tally.add(8, 100.0)
    tally.take_back(5, grain)
    assert tally.total == 3
    tally.take_back(5, grain)
    assert tally.total == 0
    tally.take_back(5, 99)
    assert tally.total == 0


def test_a_clock_that_is_set_back_frees_nothing() -> None:
    tally = Tally(10, 60.0)
    tally.add(10, 1000.0)
    assert tally.wait_s(1, 500.0) > 500.0


def test_a_clock_that_was_set_back_is_named(tmp_path: Path) -> None:
    now_s = 4e9
    quota = Quota(
        (Allowance("requests", "day", 1),), QuotaStore(tmp_path / "a.json"), lambda: now_s
    )
    quota.spend(1, 0, patience())
    now_s = 1.75e9
    with pytest.raises(QuotaError, match=f"set back since; delete {tmp_path}/a.json"):
        quota.spend(1, 0, patience())
    (tmp_path / "a.json").unlink()
    quota.spend(1, 0, patience())


@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_is_kept(window: str, tmp_path: Path) -> None:
    now_s = 1.75e9
    quota = Quota(
        (Allowance("requests", window, 2),), QuotaStore(tmp_path / "a.json"), lambda: now_s
    )
    quota.spend(2, 0, patience())
    with pytest.raises(QuotaError, match=f"2 of 2 requests a {window}") as caught:
        quota.spend(1, 0, patience())
    assert f"QR_HTTP_MAX_REQUESTS_PER_{window.upper()}" in str(caught.value)
    now_s += caught.value.wait_s
    quota.spend(2, 0, patience())


def test_nothing_is_noted_for_a_draw_that_is_refused(tmp_path: Path) -> None:
    allowances = (Allowance("requests", "day", 5), Allowance("bytes", "day", 100))
    quota = Quota(allowances, QuotaStore(tmp_path / "a.json"))
    for _ in range(3):
        with pytest.raises(QuotaError, match="101 bytes never fits"):
            quota.spend(5, 101, patience())
    quota.spend(5, 100, patience())


def test_a_restart_forgets_nothing(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("anu_legacy")
    assert len(ask(simulator, "anu_legacy").draw(64).data) == 64
    for _ in range(3):
        with pytest.raises(EntropyUnavailableError, match="1 of 1 requests a minute") as caught:
            ask(simulator, "anu_legacy").draw(64)
        assert caught.value.retry_after_s is not None
        assert 0.0 < caught.value.retry_after_s <= 61.0
    assert simulator.requests == 1


def test_bytes_a_day_are_those_that_the_service_counts(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("outshift")
    source = ask(simulator, "outshift")
    for _ in range(12):
        source.draw(999)
    for _ in range(12):
        with pytest.raises(EntropyUnavailableError, match="11988 of 12500 bytes a day are spent"):
            source.draw(999)
    assert simulator.spent_bytes == 12 * 999


def test_requests_that_were_not_made_are_not_counted(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    """The one that failed is: the service counts it, too."""
    simulator = serve("qrandom")
    source = ask(simulator, "qrandom", max_requests_per_day=10)
    simulator.fault, simulator.fault_after = "503", 2
    with pytest.raises(EntropyUnavailableError, match="not ready"):
        source.draw(6000)
    assert simulator.requests == 3
    simulator.fault = ""
    source.draw(7000)
    with pytest.raises(EntropyUnavailableError, match="10 of 10 requests a day"):
        source.draw(1)
    assert simulator.requests == 10


def draw_until_refused(make: Callable[[], HttpSource], writer: int) -> None:
    """Draws in a process of its own, and writes how often it was served."""
    source, served = make(), 0
    for _ in range(20):
        with suppress(EntropyUnavailableError):
            served += len(source.draw(8).data) // 8
    os.write(writer, bytes([served]))


def test_processes_share_what_is_allowed(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    simulator = serve("anu")
    reader, writer = os.pipe()
    children = []
    for _ in range(3):
        children.append(os.fork())
        if children[-1] == 0:
            # Whatever happens here, the tests go on in the parent alone.
            try:
                draw_until_refused(lambda: ask(simulator, "anu", max_requests_per_day=15), writer)
            finally:
                os._exit(0)
    os.close(writer)
    for child in children:
        os.waitpid(child, 0)
    served = os.read(reader, 4)
    os.close(reader)
    assert len(served) == 3
    assert sum(served) == simulator.requests == 15


def test_the_file_is_private_and_names_no_key(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource], tmp_path: Path, key_file: Path
) -> None:
    previous = os.umask(0)
    try:
        ask(serve("anu"), "anu", max_requests_per_day=5, state_dir=tmp_path / "spent").draw(8)
    finally:
        os.umask(previous)
    folder = tmp_path / "spent"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.iterdir())
    assert [path.suffix for path in files] == [".json", ".lock"]
    key = key_file.read_text().strip()
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert key not in path.name + path.read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2, "spent": {}}',
        b'{"version": 1, "spent": {"requests_per_day": {"x": 1}}}',
        b'{"version": 1, "spent": {"requests_per_day": {"1": -1}}}',
        b'{"version": 1, "spent": {"requests_per_day": {"1": true}}}',
        b'{"version": 1, "spent": {"requests_per_day": [1]}}',
        b"[" * 100_000,
        b" " * 200_000,
        b"\xff",
        b'{"version": 1, "spent": {"requests_per_day": {"%b": 1}}}' % (b"9" * 400),
        b'{"version": 1, "spent": {"requests_per_day": {"1": %b}}}' % (b"9" * 400),
        json.dumps(
            {"version": 1, "spent": {"a": {str(n): 1 for n in range(MOST_GRAINS + 1)}}}
        ).encode(),
    ],
)
def test_a_damaged_file_allows_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    quota = Quota((Allowance("requests", "day", 5),), QuotaStore(path))
    with pytest.raises(QuotaStoreError, match="is damaged"):
        quota.spend(1, 1, patience())
    assert path.read_bytes() == content


def test_neither_links_nor_pipes_are_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"version": 1, "spent": {}}')
    (tmp_path / "a.json").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "b.json")
    for name in ("a.json", "b.json"):
        quota = Quota((Allowance("requests", "day", 5),), QuotaStore(tmp_path / name))
        with pytest.raises(QuotaStoreError):
            quota.spend(1, 1, patience())


def test_a_fork_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A child that another thread forks while the file is in use."""
    store = QuotaStore(tmp_path / "a.json")
    with store.opened(patience()):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with store.opened(Deadline(time.monotonic_ns() + 10**9)):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_a_dead_process_has_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / "a.new"
    left.write_text("{")
    left.chmod(0o644)
    quota = Quota((Allowance("requests", "day", 5),), QuotaStore(tmp_path / "a.json"))
    quota.spend(1, 1, patience())
    assert not left.exists()
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600


def test_a_user_without_a_home_needs_a_folder_for_quotas_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def homeless(*_: object) -> str:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert HttpSource("lfd").limits.max_bytes_per_day is None
    with pytest.raises(ConfigError, match="QR_HTTP_STATE_DIR"):
        HttpSource("anu_legacy")


def test_a_folder_that_cannot_be_used_allows_nothing(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    simulator = serve("anu_legacy")
    source = ask(simulator, "anu_legacy", state_dir=tmp_path / "file")
    with pytest.raises(EntropyUnavailableError, match="QR_HTTP_STATE_DIR"):
        source.draw(8)
    assert simulator.requests == 0


def test_a_lock_that_others_hold_is_not_waited_for_longer_than_the_draw(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource], tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="is about POSIX")
    simulator = serve("anu_legacy")
    source = ask(simulator, "anu_legacy", state_dir=tmp_path / "spent", timeout_ms=100)
    source.draw(8)
    (lock,) = (tmp_path / "spent").glob("*.lock")
    with lock.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EntropyUnavailableError, match="held the file"):
            source.draw(8)


def test_a_service_without_limits_needs_no_file(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource], tmp_path: Path
) -> None:
    ask(serve("lfd"), "lfd", state_dir=tmp_path / "spent").draw(8)
    assert not (tmp_path / "spent").exists()


def test_limits_are_reported(
    serve: Callable[..., Simulator], ask: Callable[..., HttpSource]
) -> None:
    source = ask(serve("outshift"), "outshift", max_requests_per_minute=30)
    assert source.limits.max_bytes_per_request == 1000
    assert source.limits.max_requests_per_minute == 30
    assert source.limits.max_bytes_per_day == 12_500
    assert source.recorded_settings["bytes_per_day"] == 12_500


@pytest.mark.parametrize(
    ("options", "a_minute", "a_day"),
    [
        ({"max_requests_per_second": 2}, 120, None),
        ({"max_requests_per_minute": 5, "max_requests_per_day": 7}, 5, None),
        ({"max_requests_per_minute": 9, "max_requests_per_month": 7}, 7, None),
        ({"max_bytes_per_month": 900}, None, 900),
        ({"max_bytes_per_day": 100, "max_bytes_per_month": 900}, None, 100),
    ],
)
def test_limits_of_other_windows_are_limits_as_well(
    options: dict[str, int], a_minute: int | None, a_day: int | None
) -> None:
    """Start-up tests spare a source that they would use up; these two are all that they know."""
    limits = HttpSource("lfd", **options).limits
    assert (limits.max_requests_per_minute, limits.max_bytes_per_day) == (a_minute, a_day)
