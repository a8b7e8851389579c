# SPDX-License-Identifier: Apache-2.0
"""A conversation in the terminal, every token of the replies chosen by an entropy source."""
