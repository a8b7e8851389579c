# SPDX-License-Identifier: Apache-2.0
"""Complaints about the engines of a front end, judged by the statuses that they publish."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["MAX_FALLBACK_SHARE", "SILENCE_S", "complaints"]

MAX_FALLBACK_SHARE: Final = 0.5
"""Share of recent tokens without the chosen source above which an engine is unhealthy."""

SILENCE_S: Final = 60.0
"""Time without a status after which an engine counts as stuck, in seconds; a healthy engine
publishes several times within it."""


def complaints(statuses: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what is wrong in plain words; empty if nothing is.

    Args:
        statuses: The statuses of the engines, see :class:`~qr_sampler.host.EngineStatus`.
    """
    if not statuses:
        return ["no engine says that it has loaded qr-sampler; if none has, tokens are vLLM's own"]
    return [f"engine {status['engine']}: {text}" for status in statuses for text in _of(status)]


def _of(status: Mapping[str, Any]) -> list[str]:
    reasons = []
    if not _lives(status["pid"]):
        reasons.append("its process has ended")
    # All processes of a machine share this clock, and it cannot be set.
    elif (silence_s := (time.monotonic_ns() - status["said_monotonic_ns"]) / 1e9) > SILENCE_S:
        reasons.append(f"its process has said nothing for {silence_s:.0f} s")
    configured = status["sources"][0]
    if not configured["available"]:
        reasons.append(f"source {configured['name']} is unavailable: {configured['reason']}")
    elif configured["last_draw_failed"]:
        reasons.append(f"the last draw from source {configured['name']} has failed")
    reasons.extend(
        f"source {source['name']} has failed its health tests: {source['health']['reason']}"
        for source in status["sources"]
        if source["health"]["state"] == "failed"
    )
    recent, without = status["recent_tokens"], status["recent_without_source"]
    if recent and without > MAX_FALLBACK_SHARE * recent:
        reasons.append(f"{without} of the last {recent} tokens were not decided by their source")
    reasons.extend(
        f"{entry['count']} rows of logits held NaN, which vLLM keeps in freed blocks of its cache, "
        "where it can reach later requests; restart the engine"
        for entry in status["undecided_tokens"]
        if entry["reason"] == "nan"
    )
    if status["records_lost"]:
        reasons.append(
            f"{status['records_lost']} records could not be written, or have gone with their file"
        )
    return reasons


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Returns whether a process has ended although its id is still taken."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        # Not every system has these files, and the process may end at any moment.
        return False
    return text.rpartition(")")[2].split()[:1] == ["Z"]
