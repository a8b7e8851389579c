# SPDX-License-Identifier: Apache-2.0
"""Checks that predict what will happen when an engine starts here, without starting it."""
