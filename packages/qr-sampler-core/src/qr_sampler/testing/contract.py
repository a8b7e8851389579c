# SPDX-License-Identifier: Apache-2.0
"""What every entropy source must do, as a pytest class to inherit from."""

from __future__ import annotations

from qr_sampler.testing.contracts.answers import AnswerClauses
from qr_sampler.testing.contracts.draws import DrawClauses
from qr_sampler.testing.contracts.failures import FailureClauses
from qr_sampler.testing.contracts.just_in_time import JustInTimeClauses
from qr_sampler.testing.contracts.lifetimes import LifetimeClauses

__all__ = ["EntropySourceContract"]


# pytest begins with what is last: the clauses that others presuppose.
class EntropySourceContract(
    LifetimeClauses, FailureClauses, JustInTimeClauses, DrawClauses, AnswerClauses
):
    """Inherit, override the fixture :meth:`source`, and pytest checks a source by the contract.

    Four more fixtures are optional, and the checks that need them are skipped without them:

    * :meth:`generation_log` counts what the device has generated. It shows bytes that were made
      too early: at construction, by a passive question, for a pool, between two calls.
    * :meth:`silence` lets the device send no more. It shows bytes that were kept, whatever the
      counts say, and calls that never end.
    * :meth:`stamped_writer` is the device of a source that reads a stream. It shows bytes that
      waited in a driver, a pipe or a socket.
    * :meth:`fault` breaks the device. It shows errors of the wrong kind, and false status.

    Without them a source is a black box, and a pool that is well made looks like a device: these
    checks see repeated bytes, threads and devices at import and construction, shared buffers, wrong
    forms and what happens in threads and forks, but not how old a byte is. What only the device
    could tell, such as an internal pool of its own, no check sees.

    A source that serves rows overrides :meth:`rows` if it knows only certain ones. No check draws
    more than about 8 kilobytes. The statistical ones look for gross failure only; a perfect source
    fails any of them with probability below 1e-9 per run.

    Examples:
        >>> import pytest
        >>> from qr_sampler.testing import ConstantEntropySource
        >>> class TestConstantSource(EntropySourceContract):
        ...     constant = True
        ...     uniform = False
        ...
        ...     @pytest.fixture
        ...     def source(self):
        ...         return ConstantEntropySource()
    """
