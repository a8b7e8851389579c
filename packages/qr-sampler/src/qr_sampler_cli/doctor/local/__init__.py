# SPDX-License-Identifier: Apache-2.0
"""Checks that predict what will happen with an engine in the user's own process."""
