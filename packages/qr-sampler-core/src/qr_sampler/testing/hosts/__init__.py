# SPDX-License-Identifier: Apache-2.0
"""What every host must do: its driver, the source that watches it, and the clauses."""
