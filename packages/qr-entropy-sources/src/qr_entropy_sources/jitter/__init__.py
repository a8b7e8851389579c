# SPDX-License-Identifier: Apache-2.0
"""Timing jitter of the processor, as the system's libjitterentropy measures and tests it."""
