# SPDX-License-Identifier: Apache-2.0
"""Entropy over gRPC: the ``quantum_grpc`` source, the wire contract and a server kit.

To use it:

- :mod:`qr_sampler_grpc.source` and :mod:`qr_sampler_grpc.settings`: the entropy source that asks a
  server, and what configures it.
- :mod:`qr_sampler_grpc.server`: serves a function or any
  :class:`~qr_sampler.entropy.EntropySource`.
- :mod:`qr_sampler_grpc.direct`: source and server of a device on the same machine. It is a protocol
  of its own and no gRPC; it shares the device and the link with the others.
- :mod:`qr_sampler_grpc.conformance` and :mod:`qr_sampler_grpc.probe`: examine a server.

What these are made of:

- :mod:`qr_sampler_grpc.proto`: the wire contract and the stubs generated from it.
- :mod:`qr_sampler_grpc.protocol`: the messages of a contract, and signatures.
- :mod:`qr_sampler_grpc.connection`: addresses, sockets, channels, keys and certificates.
- :mod:`qr_sampler_grpc.transports`: the modes of a call.
- :mod:`qr_sampler_grpc.link`: what a client knows of its server: breaker, deadline, quotas.
- :mod:`qr_sampler_grpc.device`: what all listeners of a server have in common.

Importing this package alone loads neither gRPC nor protobuf.
"""

from __future__ import annotations

import os as _os
from importlib.metadata import version as _version

# gRPC's own notes quote what a peer says as it ends a connection, which may be our API key. It
# reads this when it is loaded, so a process that has loaded it before keeps its notes.
_os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

__version__ = _version("qr-sampler-grpc")

__all__: list[str] = []
