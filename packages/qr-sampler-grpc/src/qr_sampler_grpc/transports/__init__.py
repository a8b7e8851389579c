# SPDX-License-Identifier: Apache-2.0
"""How requests reach a server and its answers come back, in each mode of gRPC, and are checked."""

from __future__ import annotations

from qr_sampler_grpc.settings import GrpcOptions
from qr_sampler_grpc.transports.base import Transport

__all__ = ["Transport", "transport_for"]


def transport_for(options: GrpcOptions) -> Transport:
    """Returns the transport of the configured mode; nothing is opened yet."""
    if options.mode == "bidi_streaming":
        from qr_sampler_grpc.transports.bidi_streaming import BidiStreamingTransport

        return BidiStreamingTransport(options)
    if options.mode == "server_streaming":
        from qr_sampler_grpc.transports.server_streaming import ServerStreamingTransport

        return ServerStreamingTransport(options)
    from qr_sampler_grpc.transports.unary import UnaryTransport

    return UnaryTransport(options)
