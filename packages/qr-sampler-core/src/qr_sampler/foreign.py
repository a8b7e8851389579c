# SPDX-License-Identifier: Apache-2.0
"""Turns values from foreign code and devices into plain values of bounded size."""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from types import CodeType
from typing import Final, Protocol

from qr_sampler.errors import ComponentError

__all__ = [
    "LARGEST_NUMBER",
    "MASK",
    "MAX_TEXT_CHARACTERS",
    "DefectLog",
    "HasSettings",
    "component_failure",
    "component_settings",
    "is_our_package",
    "is_ours",
    "is_signal",
    "plain_settings",
    "plain_text",
    "secret_texts",
    "traceback_text",
    "words_of",
]

MAX_TEXT_CHARACTERS: Final = 512
"""Longest text from outside that is kept, in characters; records repeat it for every token."""

MAX_TRACEBACK_CHARACTERS: Final = 8192
"""Longest traceback that is logged, in characters; a longer one is cut to its end."""

MASK: Final = "***"
"""Stands for a secret."""

MOST_SETTINGS: Final = 100
"""Number of settings of a component that are recorded."""

MOST_SECRETS: Final = 100
"""Number of secrets that a component may declare."""

LARGEST_NUMBER: Final = 2**63 - 1
"""Beyond it many JSON readers lose precision."""

MOST_REPORTS: Final = 16
"""Number of defects of one component that are logged; each kind is logged once."""

_CUT: Final = "..."
_OUR_PACKAGES: Final = frozenset(
    {
        "qr_entropy_cryptalabs",
        "qr_entropy_http",
        "qr_entropy_serial",
        "qr_entropy_sources",
        "qr_sampler",
        "qr_sampler_grpc",
        "qr_sampler_lab",
        "qr_sampler_tsd",
    }
)


logger = logging.getLogger("qr_sampler")


def is_ours(component: object) -> bool:
    """Returns whether the class of *component* belongs to this project, whose tests bind it."""
    return is_our_package(type(component).__module__.partition(".")[0])


def is_our_package(name: str) -> bool:
    """Returns whether the import package *name* belongs to this project."""
    return name in _OUR_PACKAGES


def plain_text(value: object, secrets: Iterable[str] = (), limit: int = MAX_TEXT_CHARACTERS) -> str:
    r"""Returns *value* as one printable line of at most *limit* characters.

    Bytes are read as UTF-8. What cannot be printed, lone surrogates included, is written as an
    escape sequence. Conversion calls code of the value's author, which may raise anything.

    Args:
        value: A text, or anything convertible to one; ``None`` becomes empty.
        secrets: Texts that are masked, also as :func:`repr` and JSON write them.
        limit: Largest length of the result in characters.

    Examples:
        >>> plain_text("no\nanswer to key-1", secrets=["key-1"])
        'no answer to ***'
        >>> plain_text(b"serial 7"), plain_text(None), plain_text("x" * 9, limit=5)
        ('serial 7', '', 'xx...')
    """
    if type(value) is str and len(value) <= limit and value.isprintable():
        text: str = value
    elif value is None:
        return ""
    else:
        text = _text_of(value)
    text = _masked(text, secrets)
    if not text[: limit + 1].isprintable():
        # Escape sequences are longer than what they stand for, so cutting comes last.
        text = _printable(text[: limit + 1])
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def secret_texts(declared: object) -> tuple[str, ...]:
    """Returns the secrets that a component has declared, as texts, those that are none left out.

    Args:
        declared: What it has declared, such as texts, bytes and ``None``; its methods may raise
            anything.

    Raises:
        TypeError: When *declared* is neither a text nor iterable.
        ValueError: When there are more than anybody can have.
    """
    told = (declared,) if isinstance(declared, (str, bytes)) else declared
    if not isinstance(told, Iterable):
        raise TypeError(f"secrets are texts, not {type(declared).__name__}")
    found = tuple(islice(told, MOST_SECRETS + 1))
    if len(found) > MOST_SECRETS:
        raise ValueError(f"it declares more than {MOST_SECRETS} secrets")
    texts = ("" if secret is None else _text_of(secret) for secret in found)
    return tuple(text for text in texts if text)


def plain_settings(answer: object, secrets: Iterable[str] = ()) -> dict[str, object]:
    """Returns settings that a component has named, as plain values of bounded size.

    Numbers, flags and nothing stay what they are, all else is text; what is no mapping is none.

    Args:
        answer: What it has named them as; its methods may raise anything.
        secrets: Texts that are masked, and numbers that are written like one of them.
    """
    secrets = tuple(secrets)
    if not isinstance(answer, Mapping):
        return {}
    items = islice(answer.items(), MOST_SETTINGS)
    return {plain_text(name, secrets): _plain_value(value, secrets) for name, value in items}


def _plain_value(value: object, secrets: tuple[str, ...]) -> object:
    if value is None or isinstance(value, bool):
        return value
    number: int | float
    # Of the type itself: that of the component's author may answer otherwise each time.
    if isinstance(value, int):
        number = int.__int__(value)
        is_kept = abs(number) <= LARGEST_NUMBER
    elif isinstance(value, float):
        number = float.__float__(value)
        is_kept = math.isfinite(number)
    else:
        return plain_text(value, secrets)
    return number if is_kept and str(number) not in secrets else plain_text(number, secrets)


def words_of(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Returns the type of *error* and what it says, if it can say it, as :func:`plain_text`."""
    kind = plain_text(type(error).__name__)
    try:
        words = plain_text(error, secrets)
    # The plugin's exceptions may be defective, too.
    except BaseException as second:
        if is_signal(second):
            raise
        words = f"its text is not available ({plain_text(type(second).__name__)})"
    return f"{kind}: {words}" if words else kind


def traceback_text(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Returns the traceback of *error* for a log, of bounded size and without *secrets*."""
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # As above: formatting asks the exception for its text, its cause and its notes.
    except BaseException as second:
        if is_signal(second):
            raise
        return words_of(error, secrets)
    text = _masked(text, secrets)
    # The end says what was raised. A log is a file of text, which has no lone surrogates.
    return text[-MAX_TRACEBACK_CHARACTERS:].encode("utf-8", "backslashreplace").decode()


class HasSettings(Protocol):
    """A component that says how it is configured."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must stay secret."""

    @property
    def recorded_settings(self) -> Mapping[str, object]:
        """The settings that are in use."""


class DefectLog:
    """Logs what only the author of a component can repair, once for each kind of error.

    Args:
        subject: The component, as log messages name it.
        promise: The promise that it has broken.
        secrets: Texts that are masked.
    """

    def __init__(self, subject: str, promise: str, secrets: Iterable[str] = ()) -> None:
        self._subject = subject
        self._promise = promise
        self._secrets = tuple(secrets)
        self._reported: set[str] = set()

    def report(self, error: BaseException) -> None:
        """Logs *error* with its traceback unless its kind is known."""
        kind = plain_text(type(error).__name__)
        if kind in self._reported or len(self._reported) >= MOST_REPORTS:
            return
        self._reported.add(kind)
        text = traceback_text(error, self._secrets)
        logger.error("%s has a defect: %s\n%s", self._subject, self._promise, text)


def component_settings(kind: str, name: str, component: HasSettings) -> dict[str, object]:
    """Returns the settings that a component records, as :func:`plain_settings`; never raises.

    Args:
        kind: What it is, for example ``"signal amplifier"``.
        name: What it is configured as.
        component: The component.
    """
    secrets: tuple[str, ...] = ()
    try:
        secrets = secret_texts(component.secrets)
        return plain_settings(component.recorded_settings, secrets)
    # Whatever the component raises, its settings are unknown, and that is all.
    except BaseException as error:
        if is_signal(error):
            raise
        promise = "settings and secrets are a mapping and texts"
        DefectLog(f"{kind} {name!r}", promise, secrets).report(error)
        return {}


_COMPONENTS: Final[dict[tuple[str, str], DefectLog]] = {}


def component_failure(kind: str, name: str, error: BaseException) -> ComponentError:
    """Returns what to raise instead of *error*, which a component has raised in a step.

    Args:
        kind: What it is, for example ``"signal amplifier"``.
        name: What it is configured as.
        error: Was caught in this thread.

    Raises:
        BaseException: *error*, when a signal to this process has raised it.
    """
    if is_signal(error):
        raise error
    log = DefectLog(f"{kind} {name!r}", "it may not fail for blocks and rows that were admitted")
    _COMPONENTS.setdefault((kind, name), log).report(error)
    return ComponentError(kind, name, words_of(error))


def is_signal(error: BaseException) -> bool:
    """Returns whether *error* comes from a signal to this process rather than from what was called.

    Python runs signal handlers in the main thread, between any two instructions. So an operator's
    Ctrl-C looks as if the code had raised it that was running. The handler that raises an exception
    is among the frames of its traceback; only Python's own handler of SIGINT leaves none.

    Args:
        error: Was caught in this thread.
    """
    if isinstance(error, Exception) or threading.current_thread() is not threading.main_thread():
        return False
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    if isinstance(error, KeyboardInterrupt) and signal.default_int_handler in handlers:
        return True
    functions = [getattr(handler, "__func__", handler) for handler in handlers]
    codes = {getattr(function, "__code__", None) for function in functions}
    return any(code in codes for code in _codes(error))


def _codes(error: BaseException) -> Iterator[CodeType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code
        trace = trace.tb_next


def _text_of(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    # A subclass of str may answer for itself; what is kept has to be a str and nothing else.
    return "".join((str(value),))


def _masked(text: str, secrets: Iterable[str]) -> str:
    for spelling in _spellings(tuple(secrets)):
        text = text.replace(spelling, MASK)
    return text


@lru_cache(maxsize=128)
def _spellings(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Returns how secrets may be written in a text, longest first: one may be part of another."""
    within = [repr(secret)[1:-1] for secret in secrets]
    # Inside a text with an apostrophe, repr() writes quotation marks as they are.
    within += [spelling.replace("\\'", "'") for spelling in within]
    within += [
        json.dumps(secret, ensure_ascii=is_ascii)[1:-1]
        for secret in secrets
        for is_ascii in (True, False)
    ]
    return tuple(sorted({*secrets, *within} - {""}, key=len, reverse=True))


def _printable(text: str) -> str:
    return "".join(map(_shown, text)).strip()


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
