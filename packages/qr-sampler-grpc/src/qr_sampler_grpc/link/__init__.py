# SPDX-License-Identifier: Apache-2.0
"""What one process knows of a server: whether it may be asked, how often, and for how long.

The circuit breaker and the adaptive deadline that :class:`Link` uses are those of
:mod:`qr_sampler.entropy`. Nothing here knows of gRPC.
"""

from __future__ import annotations

from qr_sampler_grpc.link.link import EXHAUSTED_PAUSE_S, Link, LinkFailure, Refused

__all__ = ["EXHAUSTED_PAUSE_S", "Link", "LinkFailure", "Refused"]
