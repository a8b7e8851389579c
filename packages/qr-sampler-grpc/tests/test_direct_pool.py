# SPDX-License-Identifier: Apache-2.0
"""The pool of idle connections: what it keeps, closes and leaves to another process."""

from __future__ import annotations

import os
from typing import Any

import pytest

from qr_sampler_grpc.direct.pool import Pool, Pools


class FakeConnection:
    def __init__(self, *, is_clean: bool = True) -> None:
        self.is_clean = is_clean
        self.ended = ""

    def close(self) -> None:
        self.ended = "closed"

    def release(self) -> None:
        self.ended = "released"


def fakes(count: int) -> list[Any]:
    return [FakeConnection() for _ in range(count)]


def test_the_connection_used_last_is_used_first() -> None:
    pool, (one, two) = Pool(), fakes(2)
    pool.put(one)
    pool.put(two)
    assert [pool.take(), pool.take(), pool.take()] == [two, one, None]


def test_no_more_than_a_few_are_kept() -> None:
    pool, connections = Pool(), fakes(10)
    for one in connections:
        pool.put(one)
    assert [one.ended for one in connections] == [""] * 8 + ["closed"] * 2


def test_one_with_unread_bytes_is_not_kept() -> None:
    pool, dirty = Pool(), FakeConnection(is_clean=False)
    pool.put(dirty)  # type: ignore[arg-type]
    assert (dirty.ended, pool.take()) == ("closed", None)


def test_a_closed_pool_keeps_nothing() -> None:
    pool, (before, after) = Pool(), fakes(2)
    pool.put(before)
    pool.close()
    pool.put(after)
    assert (before.ended, after.ended, pool.take()) == ("closed", "closed", None)


def test_one_put_back_while_the_pool_is_closed_is_closed() -> None:
    pool = Pool()

    class Late(FakeConnection):
        @property
        def is_clean(self) -> bool:
            pool.close()
            return True

        @is_clean.setter
        def is_clean(self, value: bool) -> None: ...

    late: Any = Late()
    pool.put(late)
    assert (late.ended, pool.take()) == ("closed", None)


def test_another_process_has_another_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    pools, (ours,) = Pools(), fakes(1)
    pool = pools.current()
    pool.put(ours)
    assert pools.current() is pool
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        child = pools.current()
        assert child is not pool
        assert child.take() is None
        # The child closes its copy; the connection itself stays open in the parent.
        assert ours.ended == "released"


def test_closing_concerns_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pools, (ours,) = Pools(), fakes(1)
    pools.current().put(ours)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        pools.close()
        assert ours.ended == ""
    pools.close()
    pools.close()
    assert ours.ended == "closed"
