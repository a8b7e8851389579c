# SPDX-License-Identifier: Apache-2.0
"""Entropy over gRPC: the ``quantum_grpc`` source, the wire contract and a server kit.

- :mod:`qr_sampler_grpc.source`: the entropy source that asks a server.
- :mod:`qr_sampler_grpc.settings`: its settings.
- :mod:`qr_sampler_grpc.server`: serves a function or any
  :class:`~qr_sampler.entropy.EntropySource`.
- :mod:`qr_sampler_grpc.direct`: source and server of a device on the same machine, without gRPC.
- :mod:`qr_sampler_grpc.device`: what all listeners of a server have in common.
- :mod:`qr_sampler_grpc.proto`: the wire contract and the stubs generated from it.

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
