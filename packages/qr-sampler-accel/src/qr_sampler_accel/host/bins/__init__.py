# SPDX-License-Identifier: Apache-2.0
"""The tokens of a row in bins, and where a running total over them reaches a goal."""
