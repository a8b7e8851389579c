# SPDX-License-Identifier: Apache-2.0
"""The health tests of the core, run on demand."""
