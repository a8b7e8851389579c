# SPDX-License-Identifier: Apache-2.0
"""The server kit: a device owner writes ``generate(n)`` and :func:`serve` does the rest.

- :mod:`qr_sampler_grpc.server.serving`: starts a server.
- :mod:`qr_sampler_grpc.server.running`: a server while it runs.
- :mod:`qr_sampler_grpc.server.servicer`: answers the calls of the wire contract.
- :mod:`qr_sampler_grpc.server.lanes` and :mod:`qr_sampler_grpc.server.wait_limits`: keep some
  callers from holding up the others.
- :mod:`qr_sampler_grpc.server.keys` and :mod:`qr_sampler_grpc.server.tls`: who may call, and how.
- :mod:`qr_sampler_grpc.server.monitoring`: health and metrics, which need the extra ``server``.
- :mod:`qr_sampler_grpc.server.program` and :mod:`qr_sampler_grpc.server.logs`: the command line of
  a server program.

The device behind it, with its turn, its quotas and its signature, is
:class:`~qr_sampler_grpc.device.Device`.
"""

from __future__ import annotations

from qr_sampler_grpc.server.binding import ServerStartError
from qr_sampler_grpc.server.running import EntropyServer
from qr_sampler_grpc.server.servicer import EntropyServicer
from qr_sampler_grpc.server.serving import serve
from qr_sampler_grpc.server.tls import ServerTls

__all__ = ["EntropyServer", "EntropyServicer", "ServerStartError", "ServerTls", "serve"]
