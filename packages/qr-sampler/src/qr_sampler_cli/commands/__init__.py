# SPDX-License-Identifier: Apache-2.0
"""What a user types after ``qr-sampler``: one module per command, and the options they share."""
