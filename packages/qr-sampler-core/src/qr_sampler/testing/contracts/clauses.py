# SPDX-License-Identifier: Apache-2.0
"""What all contracts share: clauses that name one fault each, and cannot be lost unnoticed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

import pytest

__all__ = ["Contract", "clause"]

Clause = TypeVar("Clause", bound=Callable[..., None])

_KIT: Final = __name__.rpartition(".contracts.")[0] + "."

_failed: Final[dict[type, dict[str, str]]] = {}
"""By class, the clauses that nothing more can be said about in this process: those that failed, and
those that presuppose one of them. Each with the one that failed."""


class Contract:
    """Clauses of a contract, each of which finds one kind of fault and is named for it.

    A clause that presupposes another one is skipped where that has failed, so that a fault is
    reported once, by its name.

    A class that replaces or removes a clause says why in :attr:`not_applicable`; without a reason
    it cannot be defined. So nobody passes the contract because a helper happens to have the name of
    a clause.

    Raises:
        TypeError: When a subclass is defined that changes a clause without a reason, or gives a
            reason for what is no clause.
    """

    not_applicable: ClassVar[Mapping[str, str]] = {}
    """Reasons by the names of clauses. Such a clause is skipped, or what replaces it is run."""

    patience_s: ClassVar[float] = 60.0
    """How long an answer may take, in seconds, before it counts as none."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(_KIT):
            return
        clauses = _clauses(cls)
        if unknown := sorted(set(cls.not_applicable) - set(clauses)):
            raise TypeError(f"{cls.__name__}.not_applicable: {unknown} are no clauses")
        reasons: Mapping[str, object] = cls.not_applicable
        for name, reason in reasons.items():
            if not (isinstance(reason, str) and reason.strip()):
                raise TypeError(f"{cls.__name__}.not_applicable[{name!r}]={reason!r} is no reason")
        changed = [name for name, own in clauses.items() if _in_force(cls, name) is not own]
        if silent := sorted(set(changed) - set(cls.not_applicable)):
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(silent)} of the contract silently; "
                'rename what it defines, or say why: not_applicable = {"test_…": "reason"}'
            )


def clause(*presupposed: str) -> Callable[[Clause], Clause]:
    """Returns a decorator that makes a test a clause of a contract.

    Args:
        *presupposed: Clauses without which this one says nothing new.
    """

    def decorate(test: Clause) -> Clause:
        name = test.__name__

        @functools.wraps(test)
        def run(self: Contract, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            kind = type(self)
            if name in self.not_applicable and _in_force(kind, name) is run:
                pytest.skip(self.not_applicable[name])
            failed = _failed.setdefault(kind, {})
            for broken in (failed[other] for other in presupposed if other in failed):
                failed.setdefault(name, broken)
                pytest.skip(f"says nothing new, because {broken} failed")
            try:
                test(self, *args, **kwargs)
            except pytest.skip.Exception:
                raise
            # Whatever it was is raised again; only its name is noted.
            except BaseException:
                failed[name] = name
                raise

        run.is_clause = True  # type: ignore[attr-defined]
        run.presupposed = presupposed  # type: ignore[attr-defined]
        return run  # type: ignore[return-value]

    return decorate


def _clauses(kind: type) -> dict[str, object]:
    """Returns the clauses that the kit gives *kind*, by name."""
    return {
        name: value
        for base in reversed(kind.__mro__)
        if base.__module__.startswith(_KIT)
        for name, value in vars(base).items()
        if getattr(value, "is_clause", False)
    }


def _in_force(kind: type, name: str) -> object:
    return inspect.getattr_static(kind, name, None)
