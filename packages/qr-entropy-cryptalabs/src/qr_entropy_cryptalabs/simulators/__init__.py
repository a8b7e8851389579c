# SPDX-License-Identifier: Apache-2.0
"""A QCicada that is not there: it speaks the vendor's protocol behind a pseudo-terminal.

Whoever has no hardware can try the source with it, from a shell::

    python -m qr_entropy_cryptalabs.simulators --link /tmp/qcicada

Its bytes come from the operating system. The tests let the vendor's library talk to it; it was not
compared with a real device.
"""

from __future__ import annotations

from qr_entropy_cryptalabs.simulators.qcicada import SimulatedQCicada
from qr_entropy_cryptalabs.simulators.signing import Identity

__all__ = ["Identity", "SimulatedQCicada"]
