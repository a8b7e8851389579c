# SPDX-License-Identifier: Apache-2.0
"""The findings of ``qr-sampler probe`` about an entropy server."""
