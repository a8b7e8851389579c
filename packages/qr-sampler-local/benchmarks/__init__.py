# SPDX-License-Identifier: Apache-2.0
"""What choosing a token costs a loop of one's own and the engines."""
