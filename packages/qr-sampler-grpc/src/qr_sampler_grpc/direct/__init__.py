# SPDX-License-Identifier: Apache-2.0
"""Entropy over a Unix domain socket without gRPC, for a device on the same machine."""
