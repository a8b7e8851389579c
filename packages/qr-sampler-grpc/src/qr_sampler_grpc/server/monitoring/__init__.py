# SPDX-License-Identifier: Apache-2.0
"""Monitoring: health, reflection and metrics.

It needs the extra ``server``, and is served apart from the clients that draw.
"""
