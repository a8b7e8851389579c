# SPDX-License-Identifier: Apache-2.0
"""Requests that vLLM makes up to warm its kernels up: no client waits for their tokens.

Model Runner V2 sends them through the whole of a step. Their parameters do not give them away: a
client may send the same ones, and each version of vLLM has made up others. Nor does a mark that
admission leaves on what clients send, since a front end without the plugin leaves none, and the
tokens of its clients would then be vLLM's own without a word. What does tell is who is calling.
"""

from __future__ import annotations

import inspect
import re
from types import FrameType
from typing import Final

__all__ = ["is_warming_up"]

_WARMING_UP: Final = re.compile(r"warm(ing)?_?up|dummy_(sampler_)?run|profile_run")
"""Part of the name of every function, or of its module, with which vLLM's workers get ready."""

_BEYOND_WORKERS: Final = ("vllm.v1.executor.", "vllm.v1.engine.")
"""Where the calls of a worker come from. Beyond are front ends and programs, with names of their
own: an engine may live in the process of its clients."""


def is_warming_up() -> bool:
    """Returns whether vLLM's worker is getting ready in the calling thread.

    A client's request reaches a worker when it is ready; whatever it is asked before is made up.
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
