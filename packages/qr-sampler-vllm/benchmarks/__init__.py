# SPDX-License-Identifier: Apache-2.0
"""What a sampling step costs, next to vLLM's own sampler. ``uv run nox -s bench`` runs it."""
