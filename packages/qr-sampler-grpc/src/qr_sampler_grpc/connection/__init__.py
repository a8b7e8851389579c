# SPDX-License-Identifier: Apache-2.0
"""Connecting to a server: addresses, sockets, channels, keys and certificates."""
