# SPDX-License-Identifier: Apache-2.0
"""What the clauses about entropy sources share: what their author provides, and the names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

import pytest

from qr_sampler.entropy.row_context import RowContext
from qr_sampler.testing.contracts.clauses import Contract

__all__ = [
    "AVAILABLE",
    "EXACT",
    "FLOATS",
    "FRESH",
    "OWN",
    "PLAIN_STATUS",
    "SAMPLE_BYTES",
    "SILENT",
    "TIMELY",
    "UNREPEATED",
    "UNUSABLE",
    "SourceClauses",
    "assert_disjoint",
    "required",
]

SAMPLE_BYTES: Final = 4096

WINDOW_BYTES: Final = 32
"""Independent bytes repeat a window of this length with negligible probability: below 1e-12 in any
test here when each holds 2 bits of min-entropy, and 1e-70 when it holds 8."""

TIMELY: Final = "test_an_answer_comes_in_time"
EXACT: Final = "test_length_is_exact"
FLOATS: Final = "test_floats_are_uniform_lattice_points"
UNUSABLE: Final = "test_unusable_float_arrays_are_refused"
OWN: Final = "test_answers_share_no_buffer"
UNREPEATED: Final = "test_nothing_is_delivered_twice"
FRESH: Final = "test_every_answer_is_generated_after_its_request"
SILENT: Final = "test_a_silent_device_delivers_nothing"
PLAIN_STATUS: Final = "test_status_is_plain"
AVAILABLE: Final = "test_availability_is_true"


class SourceClauses(Contract):
    """What the author of a source provides for its tests."""

    constant: ClassVar[bool] = False
    """Set for a double whose answers repeat; skips the checks that no byte is delivered twice."""

    uniform: ClassVar[bool] = True
    """Unset for a source that is biased on purpose; skips the statistical checks."""

    @pytest.fixture
    def source(self) -> Any:
        """The source under test, freshly constructed. To be overridden; may yield and clean up."""
        raise NotImplementedError("override the fixture 'source' to return the source under test")

    @pytest.fixture
    def generation_log(self) -> Any:
        """A callable without arguments: how many bytes the device has generated so far.

        It must learn that by a route other than the source's own methods, for example from the far
        end of a connection, and start from 0 when :meth:`source` is constructed. A device that
        oversamples may report more bytes than it delivers, never fewer.
        """
        return None

    @pytest.fixture
    def fault(self) -> Any:
        """A callable without arguments that makes the source of this test unavailable."""
        return None

    @pytest.fixture
    def silence(self) -> Any:
        """A callable without arguments that lets the device stay connected and send no more.

        A draw has to end then all the same, by a deadline of the source's own.
        """
        return None

    @pytest.fixture
    def stamped_writer(self) -> Any:
        """A :class:`~qr_sampler.testing.StampedWriter` whose bytes the source reads, unchanged.

        For a source that reads what flows by itself: a port, a pipe, a socket.
        """
        return None

    @pytest.fixture
    def rows(self) -> Any:
        """Rows that the source serves: their contexts, and the sizes of their blocks."""
        contexts = [RowContext("run", "sequence", row, b"", f"request {row}") for row in range(3)]
        return contexts, [16, 0, 48]


def required(fixture: Callable[[], Any] | None, *names: str) -> Callable[[], Any]:
    """Returns *fixture*, or skips the test where the author has provided none of *names*."""
    if fixture is None:
        wanted = " or ".join(map(repr, names))
        pytest.skip(f"override the fixture {wanted} to enable this check")
    return fixture


def assert_disjoint(answers: Sequence[bytes]) -> None:
    """Fails when any stretch of 32 bytes occurs twice in *answers*."""
    windows = [window for answer in answers for window in _windows(answer)]
    repeated = len(windows) - len(set(windows))
    assert repeated == 0, f"{repeated} stretches of {WINDOW_BYTES} bytes were delivered twice"


def _windows(data: bytes) -> Iterator[bytes]:
    for start in range(len(data) - WINDOW_BYTES + 1):
        yield bytes(data[start : start + WINDOW_BYTES])
