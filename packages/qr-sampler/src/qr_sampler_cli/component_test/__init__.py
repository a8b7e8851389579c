# SPDX-License-Identifier: Apache-2.0
"""An installed component under test, in processes of its own."""
