# SPDX-License-Identifier: Apache-2.0
"""Test programs that others have written, run where they are installed and never imported."""
