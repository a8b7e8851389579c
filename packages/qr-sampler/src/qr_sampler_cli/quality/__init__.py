# SPDX-License-Identifier: Apache-2.0
"""What the bytes of a source are worth: estimates, tests, and programs that others have written."""
