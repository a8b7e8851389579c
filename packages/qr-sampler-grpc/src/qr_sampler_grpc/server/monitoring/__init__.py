# SPDX-License-Identifier: Apache-2.0
"""What a server tells those who watch it: its health, its contract and its metrics.

All of it needs the extra ``server``. It is answered apart from the clients that draw.
"""
