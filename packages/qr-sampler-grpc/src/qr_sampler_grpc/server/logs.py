# SPDX-License-Identifier: Apache-2.0
"""Log lines of a server program: plain text, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Final

__all__ = ["FORMATS", "JsonFormatter", "configure_logging"]

FORMATS: Final = ("text", "json")
"""The formats of log lines."""

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FACTS: Final = ("peer", "method", "code")


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON.

    The keys are ``time`` (UTC, RFC 3339), ``level``, ``logger``, ``message``; ``peer``, ``method``
    and ``code`` where a request is meant; ``exception`` where there is one.

    Examples:
        >>> record = logging.LogRecord("n", logging.INFO, "", 0, "hello %s", ("you",), None)
        >>> json.loads(JsonFormatter().format(record))["message"]
        'hello you'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without its end."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        entry = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {fact: str(vars(record)[fact]) for fact in _FACTS if fact in vars(record)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logging(form: str = "text", level: str = "INFO") -> None:
    """Sends what this process logs to the standard error, in place of what was set up before.

    Args:
        form: One of :data:`FORMATS`.
        level: Lowest level that is written, such as ``"INFO"``.

    Raises:
        ValueError: When *form* or *level* is unknown.
    """
    if form not in FORMATS:
        raise ValueError(f"log format {form!r} is unknown; use one of {', '.join(FORMATS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
