# SPDX-License-Identifier: Apache-2.0
"""Bring your own physical randomness to LLM sampling: the qr-sampler command."""
