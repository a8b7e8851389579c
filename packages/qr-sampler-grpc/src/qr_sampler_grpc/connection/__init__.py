# SPDX-License-Identifier: Apache-2.0
"""How the two ends meet: addresses, sockets, channels, keys and certificates."""
