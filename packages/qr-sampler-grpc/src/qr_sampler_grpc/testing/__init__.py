# SPDX-License-Identifier: Apache-2.0
"""For tests of clients and servers.

- :mod:`qr_sampler_grpc.testing.scripted`: gRPC servers whose every answer a function makes.
- :mod:`qr_sampler_grpc.testing.scripted_direct`: the same for the direct protocol.
- :mod:`qr_sampler_grpc.testing.fields`: single fields of a message, right or wrong.
- :mod:`qr_sampler_grpc.testing.devices`: devices that count, or wait until they may answer.
- :mod:`qr_sampler_grpc.testing.patience`: how long a test waits.
- :mod:`qr_sampler_grpc.testing.keys`: key pairs of the signature (extra ``signing``).
- :mod:`qr_sampler_grpc.testing.certificates`: TLS certificates (extra ``signing``).
"""
