# SPDX-License-Identifier: Apache-2.0
"""How commands appear in a terminal: consoles, progress bars, lengths of time."""
