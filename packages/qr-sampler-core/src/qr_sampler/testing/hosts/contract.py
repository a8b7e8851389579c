# SPDX-License-Identifier: Apache-2.0
"""What every host must do, as a pytest class to inherit from."""

from __future__ import annotations

from qr_sampler.testing.hosts.draws import DrawClauses
from qr_sampler.testing.hosts.failures import FailureClauses
from qr_sampler.testing.hosts.interruptions import InterruptionClauses
from qr_sampler.testing.hosts.records import RecordClauses

__all__ = ["HostContract"]


# pytest begins with what is last: the clauses that others presuppose.
class HostContract(InterruptionClauses, FailureClauses, DrawClauses, RecordClauses):
    """Inherit, say what the engine is called, override the fixture :meth:`start`.

    A host is whatever computes logits; its adapter hands them to a session and does what that says.
    The contract runs a few short texts through it by a :class:`~qr_sampler.testing.HostDriver`, on
    a source that keeps an account of its own, and holds the ledger against both.

    What a host cannot do, because its engine has no batches or never throws a token away, its class
    says in ``not_applicable = {"test_…": "reason"}``.

    The model may be any; its end token has to be improbable, so that texts have the length that is
    asked for. A whole run generates some 300 tokens.

    Examples:
        >>> import pytest
        >>> from qr_sampler.testing import HostContract
        >>> class TestMyHost(HostContract):
        ...     engine = "my engine"
        ...     model = "tiny"
        ...
        ...     @pytest.fixture
        ...     def start(self):
        ...         return lambda settings, sources: MyDriver(settings, sources)
    """
