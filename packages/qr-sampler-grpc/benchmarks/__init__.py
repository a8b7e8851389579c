# SPDX-License-Identifier: Apache-2.0
"""How long a draw takes: every mode and address, against a bare socket in the same run."""
