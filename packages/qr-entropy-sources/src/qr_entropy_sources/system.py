# SPDX-License-Identifier: Apache-2.0
"""The random number generator of the operating system, as an entropy source."""

from __future__ import annotations

import os

from qr_sampler.entropy import EntropySource, JitClass
from qr_sampler.entropy.device_notes import DeviceNote
from qr_sampler.errors import EntropyUnavailableError

__all__ = ["SystemEntropySource"]


class SystemEntropySource(EntropySource):
    """Draws from the operating system's cryptographic generator through :func:`os.urandom`.

    The bytes are statistically flawless and always available, which makes this the default fallback
    and the control of an experiment. They are computed from a seed that was gathered earlier, so
    the source is classed as pseudo-random. The conditioning names the generator of Linux; other
    systems use constructions of their own.

    Examples:
        >>> len(SystemEntropySource().get_random_bytes(16))
        16
    """

    jit_class = JitClass.PSEUDO
    blocks = False
    conditioning = "chacha20-csprng"
    device_notes = (
        DeviceNote(
            device="The operating system's generator (control)",
            reached_by="`os.urandom`",
            rate_bytes_per_s=520e6,
            ms_per_token={64: 0.003, 1_024: 0.005, 10_240: 0.02},
            jit_class=JitClass.PSEUDO,
            conditioning="chacha20-csprng",
            basis="measured here, on one core of an x86 virtual machine",
        ),
    )

    @property
    def name(self) -> str:
        """``"system"``."""
        return "system"

    def get_random_bytes(self, n: int) -> bytes:
        """Returns exactly *n* bytes of the operating system's generator.

        Raises:
            EntropyUnavailableError: When the system has no generator or refuses to serve it.
            ValueError: When *n* is negative.
        """
        try:
            return os.urandom(n)
        except (NotImplementedError, OSError) as error:
            reason = f"os.urandom({n}) failed: {error}; name another source in QR_FALLBACK_MODE"
            raise EntropyUnavailableError(self.name, reason) from error
