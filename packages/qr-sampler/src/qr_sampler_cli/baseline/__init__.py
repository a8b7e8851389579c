# SPDX-License-Identifier: Apache-2.0
"""Measuring what a device does at rest, within the quotas of its server."""
