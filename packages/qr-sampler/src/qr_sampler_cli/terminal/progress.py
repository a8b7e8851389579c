# SPDX-License-Identifier: Apache-2.0
"""Progress, shown on standard error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from qr_sampler_cli.terminal.consoles import printable, progress_console
from qr_sampler_cli.terminal.durations import duration

__all__ = [
    "counting_bar",
    "no_progress_bars_of",
    "remark",
    "stage",
    "training_bar",
]

Report: TypeAlias = Callable[[int, int, float], None]
"""Called as ``report(step, steps, loss_nats)``."""

Count: TypeAlias = Callable[[int, int], None]
"""Called as ``count(done, total)``."""

_drawing: Final[list[Console]] = []
"""The console of the bar that is being drawn; only it can print above the bar."""


class _CountColumn(ProgressColumn):
    """Asks for a number at every refresh."""

    def __init__(self, count: Callable[[], int], unit: str) -> None:
        super().__init__()
        self._count = count
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{self._count()} {self._unit}")


@contextlib.contextmanager
def stage(
    description: str, *, count: Callable[[], int] | None = None, unit: str = ""
) -> Iterator[None]:
    """Shows that *description* is in progress: a spinner with the time, or a line if no terminal.

    Args:
        description: What is being done.
        count: Asked several times a second for a number to show.
        unit: What that number counts.
    """
    console = progress_console()
    description = printable(description)
    if not console.is_terminal:
        console.print(f"{description} ...")
        yield
        return
    columns: list[ProgressColumn] = [SpinnerColumn(), _description()]
    if count is not None:
        columns.append(_CountColumn(count, unit))
    columns.append(TimeElapsedColumn())
    progress = Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False)
    with progress:
        progress.add_task(description, total=None)
        yield


def _description() -> TextColumn:
    """Returns the column of what is in progress: paths in it may have brackets."""
    return TextColumn("{task.description}", markup=False)


@contextlib.contextmanager
def training_bar(description: str) -> Iterator[Report]:
    """Yields a function that shows the progress of a training: a bar, or ten lines if no terminal.

    Args:
        description: What is being trained.
    """
    console = progress_console()
    if not console.is_terminal:
        yield _line_reporter(console, description)
        return
    loss = TextColumn("{task.fields[loss]}")
    columns = (_description(), BarColumn(), TimeRemainingColumn(), loss)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=None, loss="")

        def report(step: int, steps: int, loss_nats: float) -> None:
            progress.update(task, completed=step, total=steps, loss=f"loss {loss_nats:.2f}")

        yield report


def _line_reporter(console: Console, description: str) -> Report:
    def report(step: int, steps: int, loss_nats: float) -> None:
        if _is_due(step, steps):
            console.print(f"{description}: step {step} of {steps}, loss {loss_nats:.2f}")

    return report


@contextlib.contextmanager
def counting_bar(
    description: str, *, unit: str, initial: int = 0, in_files: bool = True
) -> Iterator[Count]:
    """Yields a function that shows the progress of a count: a bar, or ten lines if no terminal.

    Both show how much time is left.

    Args:
        description: What is being done.
        unit: What is counted.
        initial: The initial count.
        in_files: Whether anything is shown without a terminal.
    """
    console = progress_console()
    if not console.is_terminal and not in_files:
        yield lambda done, total: None
        return
    if not console.is_terminal:
        yield _line_counter(console, description, unit, initial)
        return
    columns = (
        _description(),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    # A long period, because a pace that a quota dictates has long pauses.
    with Progress(
        *columns, console=console, transient=True, speed_estimate_period=300.0
    ) as progress:
        task = progress.add_task(description, total=None, completed=initial)

        def count(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        _drawing.append(console)
        try:
            yield count
        finally:
            _drawing.pop()


def _line_counter(console: Console, description: str, unit: str, initial: int) -> Count:
    started_s = time.monotonic()

    def count(done: int, total: int) -> None:
        if not _is_due(done, total):
            return
        left_s = (time.monotonic() - started_s) / max(1, done - initial) * (total - done)
        left = f", about {duration(left_s)} left" if done < total else ""
        console.print(f"{description}: {done} of {total} {unit}{left}", soft_wrap=True)

    return count


def remark(text: str) -> None:
    """Prints a line to standard error, above a bar that is being drawn there."""
    console = _drawing[-1] if _drawing else progress_console()
    # A file has no width that lines should be broken at.
    console.print(printable(text), soft_wrap=not console.is_terminal)


def _is_due(done: int, total: int) -> bool:
    """Whether a line is due, about ten times in all."""
    return done == total or done % max(1, total // 10) == 0


@contextlib.contextmanager
def no_progress_bars_of(bars: Any) -> Iterator[None]:
    """Keeps transformers from drawing a bar of its own under the caller's.

    Args:
        bars: Its module ``transformers.utils.logging``.
    """
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
