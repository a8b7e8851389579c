# SPDX-License-Identifier: Apache-2.0
"""A run of an engine in this process: prompts in, text and records out, the two reconciled."""
