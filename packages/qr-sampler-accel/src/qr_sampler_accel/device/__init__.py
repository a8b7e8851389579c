# SPDX-License-Identifier: Apache-2.0
"""Selection on the device where the logits are, all rows at once; it needs torch."""
