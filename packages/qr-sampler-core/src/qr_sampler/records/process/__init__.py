# SPDX-License-Identifier: Apache-2.0
"""A ledger that a process of its own writes, so that no step shares its interpreter with that.

Engine and writer alternate: a request, then a reply. So nothing piles up between them, and a disk
that stalls is noticed where records wait already.
"""

from __future__ import annotations

from qr_sampler.records.process.messages import Start
from qr_sampler.records.process.outside_writer import OutsideWriter

__all__ = ["OutsideWriter", "Start"]
