# SPDX-License-Identifier: Apache-2.0
"""What is said over gRPC: profiles of contracts, their messages, and what signatures cover.

The contract itself and its generated stubs are in :mod:`qr_sampler_grpc.proto`.
"""
