# SPDX-License-Identifier: Apache-2.0
"""For tests of clients and servers: servers that do as they are told, and certificates.

- :mod:`qr_sampler_grpc.testing.scripted`: servers whose every answer a function makes.
- :mod:`qr_sampler_grpc.testing.fields`: single fields of a message, right or wrong.
- :mod:`qr_sampler_grpc.testing.certificates`: certificates of the moment (extra ``signing``).
"""
