# SPDX-License-Identifier: Apache-2.0
"""What sources, amplifiers and strategies must do, as classes of tests to inherit from."""
