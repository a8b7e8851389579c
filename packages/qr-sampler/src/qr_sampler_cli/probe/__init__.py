# SPDX-License-Identifier: Apache-2.0
"""What ``qr-sampler probe`` says about an entropy server."""
