# SPDX-License-Identifier: Apache-2.0
"""What will happen when vLLM starts here, found out without starting an engine."""
