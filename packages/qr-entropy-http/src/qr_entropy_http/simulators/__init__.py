# SPDX-License-Identifier: Apache-2.0
"""Services to try without an account: each speaks the protocol of one preset on loopback.

They are written after what the services document, not after the presets, and count what they were
asked for. In a shell: ``python -m qr_entropy_http.simulators lfd``.
"""

from __future__ import annotations

from qr_entropy_http.simulators.faults import FAULTS
from qr_entropy_http.simulators.protocols import PROTOCOLS
from qr_entropy_http.simulators.simulator import Delivery, Simulator

__all__ = ["FAULTS", "PROTOCOLS", "Delivery", "Simulator"]
