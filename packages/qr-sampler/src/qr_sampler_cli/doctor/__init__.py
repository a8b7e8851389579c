# SPDX-License-Identifier: Apache-2.0
"""Checks that predict what will happen when vLLM starts here, without starting an engine."""
