# SPDX-License-Identifier: Apache-2.0
"""Entropy sources for qr-sampler that need nothing beyond the standard library and NumPy.

* ``system``: the generator of the operating system.
* ``timing_noise``: timing jitter of the processor; experimental and educational.
* ``jitterentropy``: timing jitter of the processor, measured and tested by libjitterentropy.
* ``prng``: pseudo-random bytes of streams that can be computed again.
* ``mock_uniform``: pseudo-random bytes, reproducible or biased on demand.
* ``sham``: computed bytes behind the latencies of a device.
* ``device_file``: a hardware generator behind a character device, FIFO or socket.

qr-sampler finds them by these names through the entry-point group ``qr_sampler.entropy_sources``.
Import the classes from their modules; importing this package loads none of them.
"""

from __future__ import annotations

from importlib.metadata import version as _version

__all__ = ["__version__"]

__version__ = _version("qr-entropy-sources")
