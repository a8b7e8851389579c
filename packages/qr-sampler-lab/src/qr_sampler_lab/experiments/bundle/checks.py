# SPDX-License-Identifier: Apache-2.0
"""The claims of a bundle, each of which holds, fails or cannot be said."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import typer
from rich.text import Text

from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.audit.findings import MOST_LISTED, Places, Rung, Status
from qr_sampler_cli.terminal.consoles import printable, result_console

__all__ = ["Checks", "print_checks"]

_CLAIMS: Final = (
    ("bag", "every file is the one that was bagged, and none is missing or added"),
    ("seal", "protocol, prompts and N are those that were sealed, and the journal begins with it"),
    ("register", "the laboratory's register has the study, its end, and no other study"),
    ("journal", "what happened is in order, and happened once"),
    ("plan", "the order follows from the seal and what it commits to, and the sessions follow it"),
    ("ledgers", "no rung of the audit fails, and every ledger begins with the seal"),
    ("requests", "every token belongs to a journalled request of the planned arm"),
    ("counts", "no token that was emitted is missing, and no session was dropped"),
    ("stopping", "N and the rule that ends the study were kept"),
    ("figures", "exclusions and figures follow from the chained lines"),
)

_MALFORMED: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What comes of lines that are in a chain and say something else than they ought to."""

_STYLES: Final[dict[Status, str]] = {
    "holds": "green",
    "cannot be said": "yellow",
    "fails": "bold red",
}


class Checks:
    """What was found on each claim."""

    def __init__(self) -> None:
        places = Places()
        self._rungs = {
            name: Rung(number, name, claim, places)
            for number, (name, claim) in enumerate(_CLAIMS, start=1)
        }

    @property
    def rungs(self) -> list[Rung]:
        """The claims with their findings."""
        return list(self._rungs.values())

    @property
    def fails(self) -> bool:
        """Whether a claim fails."""
        return any(rung.failed for rung in self.rungs)

    def status(self, name: str) -> Status:
        """Returns how a claim stands."""
        return self._rungs[name].status

    def fail(self, name: str, what: str) -> None:
        """Notes something that is wrong."""
        self._rungs[name].fail(0, what)

    def cannot_say(self, name: str, what: str) -> None:
        """Notes something that the bundle does not show."""
        self._rungs[name].cannot_say(what)

    def note(self, name: str, what: str) -> None:
        """Notes a remark on a claim that judges nothing."""
        self._rungs[name].note(what)

    def compare(self, name: str, what: str, found: object, expected: object) -> None:
        """Notes a value that is not the expected one."""
        if found != expected:
            self.fail(name, f"{what} is {_shown(found)}, and ought to be {_shown(expected)}")

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Makes an error in the block a failure of a claim.

        What is behind the block cannot rely on what it was to find out.
        """
        try:
            yield
        except QRSamplerError as error:
            self.fail(name, str(error))
        except _MALFORMED as error:
            reason = f"{type(error).__name__}: {error}"
            self.fail(name, f"what ought to be there has another form ({reason})")

    def as_data(self) -> dict[str, Any]:
        """Returns the findings as JSON-ready values."""
        statuses = {rung.status for rung in self.rungs}
        worst = ("fails", "cannot be said", "holds")
        return {
            "verdict": next(status for status in worst if status in statuses),
            "claims": [
                {
                    "name": rung.name,
                    "claim": rung.claim,
                    "status": rung.status,
                    "failed": rung.failed,
                    "failures": [failure.what for failure in rung.failures],
                    "cannot_be_said": list(rung.unsaid),
                    "notes": list(rung.notes),
                }
                for rung in self.rungs
            ],
        }


def print_checks(checks: Checks) -> None:
    """Prints every claim with what was found."""
    console = result_console()
    for rung in checks.rungs:
        head = Text(f"{rung.number} {rung.name}: ", style="bold")
        head.append(rung.status, style=_STYLES[rung.status])
        if rung.status == "holds":
            head.append(f" ({rung.claim})")
        console.print(head, soft_wrap=True)
        for failure in rung.failures:
            typer.echo(f"  fails: {printable(failure.what)}")
        if rung.failed > MOST_LISTED:
            typer.echo(f"  fails: {rung.failed - MOST_LISTED:,} more")
        for unsaid in rung.unsaid.values():
            typer.echo(f"  cannot be said: {printable(unsaid.what)}")
        for note in rung.notes:
            typer.echo(f"  {printable(note)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
