# SPDX-License-Identifier: Apache-2.0
"""Witnesses from outside for ledgers that are being written, and places that keep what they say.

- :mod:`qr_sampler_lab.anchors.anchoring`: follows ledgers and has their heads stamped.
- :mod:`qr_sampler_lab.anchors.drand` and :mod:`qr_sampler_lab.anchors.time_stamps`: what others are
  asked for; :mod:`qr_sampler_lab.anchors.fetching`: how.
- :mod:`qr_sampler_lab.anchors.heads`: the head of a file that grows.
- :mod:`qr_sampler_lab.anchors.files`: where anchors are written.
- :mod:`qr_sampler_lab.anchors.deposits`: second places.

What they say is verified without a network, by ``qr-sampler audit``.
"""

from __future__ import annotations

__all__: list[str] = []
