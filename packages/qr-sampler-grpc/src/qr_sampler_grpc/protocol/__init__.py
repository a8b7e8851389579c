# SPDX-License-Identifier: Apache-2.0
"""The messages spoken over gRPC: profiles of contracts, encodings and signatures.

The contract itself and its generated stubs are in :mod:`qr_sampler_grpc.proto`.
"""
