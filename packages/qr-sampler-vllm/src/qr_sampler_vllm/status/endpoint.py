# SPDX-License-Identifier: Apache-2.0
"""Routes of vLLM's API server that show the state of the entropy source.

vLLM adds the routes of a plugin only if the operator names the plugin in ``VLLM_PLUGINS``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from qr_sampler_vllm.status.health import complaints
from qr_sampler_vllm.status.run_directory import published

__all__ = ["StatusEndpoint", "status_document"]

HEALTHY, UNHEALTHY = 200, 503

_FRESH = {"Cache-Control": "no-store"}
_FOR_US = ("pid", "said_monotonic_ns")
"""Keys that mean nothing to readers on other machines."""
_PUBLIC_NAMES = {"requests_left_to_engine": "requests_left_to_vllm"}
"""Keys that have another name here than for other engines."""


class StatusEndpoint:
    """``/qr/status``, and ``/qr/metrics`` for servers whose ``/metrics`` cannot hold ours.

    Both read what engines have published; they query no engine, draw nothing and answer even while
    an engine waits for a device.
    """

    name = "qr_sampler"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """Adds the routes to vLLM's FastAPI application."""
        app.add_api_route("/qr/status", _status, methods=["GET"], include_in_schema=False)
        app.add_api_route("/qr/metrics", _metrics, methods=["GET"], include_in_schema=False)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Does nothing: no engine is queried."""


def status_document() -> tuple[int, Mapping[str, Any]]:
    """Returns the HTTP status and the body of ``/qr/status``."""
    engines = published()
    reasons = complaints(engines)
    now_ns = time.monotonic_ns()
    body = {
        "healthy": not reasons,
        "reasons": reasons,
        "engines": [_shown(engine, now_ns) for engine in engines],
    }
    return UNHEALTHY if reasons else HEALTHY, body


def _shown(engine: Mapping[str, Any], now_ns: int) -> dict[str, Any]:
    last, age = engine["last_draw"], None
    if last is not None:
        last = dict(last)
        age = max(now_ns - last.pop("monotonic_ns"), 0) / 1e9
    shown = {
        _PUBLIC_NAMES.get(name, name): value
        for name, value in engine.items()
        if name not in _FOR_US
    }
    return {**shown, "last_draw": last, "last_draw_age_s": age}


def _status() -> Any:
    from fastapi.responses import JSONResponse

    code, body = status_document()
    return JSONResponse(body, status_code=code, headers=_FRESH)


def _metrics() -> Any:
    from fastapi.responses import Response
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    from qr_sampler_vllm.status.prometheus import EngineCollector

    registry = CollectorRegistry()
    registry.register(EngineCollector())
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers=_FRESH)
