# SPDX-License-Identifier: Apache-2.0
"""What an examination reports: findings with a level and a remedy, and their display."""
