# SPDX-License-Identifier: Apache-2.0
"""Compiled loops over logits in the memory of the host; they need Numba."""
