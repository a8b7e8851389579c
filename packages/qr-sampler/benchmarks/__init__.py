# SPDX-License-Identifier: Apache-2.0
"""What drafting saves, and what it costs, with a Hugging Face model."""
