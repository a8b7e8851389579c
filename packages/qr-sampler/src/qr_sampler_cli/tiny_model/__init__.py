# SPDX-License-Identifier: Apache-2.0
"""A small language model trained on the text that this package ships."""
