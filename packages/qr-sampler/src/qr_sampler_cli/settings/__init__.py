# SPDX-License-Identifier: Apache-2.0
"""The reference of all settings, generated from the packages that are installed."""
