# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the engines of a front end, judged by what they say of themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["MAX_FALLBACK_SHARE", "complaints"]

MAX_FALLBACK_SHARE: Final = 0.5
"""Share of recent tokens without the chosen source above which an engine is unhealthy."""


def complaints(statuses: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns what is wrong, in words; empty when everything is well.

    Args:
        statuses: What the engines say, see :meth:`~qr_sampler_vllm.engine_status.EngineStatus`.
    """
    if not statuses:
        return ["no engine has loaded qr-sampler: its tokens would be vLLM's own"]
    return [f"engine {status['engine']}: {text}" for status in statuses for text in _of(status)]


def _of(status: Mapping[str, Any]) -> list[str]:
    found = []
    if not _lives(status["pid"]):
        found.append("its process has ended")
    configured = status["sources"][0]
    if not configured["available"]:
        found.append(f"source {configured['name']} is unavailable: {configured['reason']}")
    recent, without = status["recent_tokens"], status["recent_without_source"]
    if recent and without > MAX_FALLBACK_SHARE * recent:
        found.append(f"{without} of the last {recent} tokens were not decided by their source")
    if status["records_lost"]:
        found.append(f"{status['records_lost']} records could not be written")
    return found


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
