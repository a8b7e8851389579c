# SPDX-License-Identifier: Apache-2.0
"""Requests that vLLM makes up to warm up its kernels: no client waits for their tokens.

Model Runner V2 sends them through a whole step. Their parameters do not identify them: a client may
send the same ones, and they differ between versions of vLLM. Nor could admission mark the requests
of clients: a front end without the plugin would set no mark, and vLLM would silently choose the
tokens of its clients. What does identify them is the caller.
"""

from __future__ import annotations

import inspect
import re
from types import FrameType
from typing import Final

__all__ = ["is_warming_up"]

_WARMING_UP: Final = re.compile(r"warm(ing)?_?up|dummy_(sampler_)?run|profile_run")
"""Part of the name of every function, or of its module, that prepares vLLM's workers."""

_BEYOND_WORKERS: Final = ("vllm.v1.executor.", "vllm.v1.engine.")
"""The callers of a worker. Frames beyond them belong to front ends and to programs, whose names may
be anything: an engine may live in the process of its clients."""


def is_warming_up() -> bool:
    """Returns whether the calling thread is warming up a worker of vLLM.

    Requests of clients reach a worker once it is ready; all earlier ones are made up.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_BEYOND_WORKERS):
            return False
        name = f"{module}.{frame.f_code.co_name}"
        if module.startswith("vllm.") and _WARMING_UP.search(name):
            return True
        frame = frame.f_back
    return False
