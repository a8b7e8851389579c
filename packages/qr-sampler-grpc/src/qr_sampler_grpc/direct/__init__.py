# SPDX-License-Identifier: Apache-2.0
"""Entropy over a Unix domain socket without gRPC, for a device on the same machine.

- :mod:`qr_sampler_grpc.direct.source`: the entropy source ``direct``.
- :mod:`qr_sampler_grpc.direct.settings`: its settings.
- :mod:`qr_sampler_grpc.direct.server`: serves a :class:`~qr_sampler_grpc.device.Device`, beside
  gRPC if need be.
- :mod:`qr_sampler_grpc.direct.frame`: the frames, which ``PROTOCOL.md`` beside it defines.

Neither side loads gRPC or protobuf.
"""

from __future__ import annotations

__all__: list[str] = []
