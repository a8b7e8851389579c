# SPDX-License-Identifier: Apache-2.0
"""Helpers for testing qr-sampler and the sources that plug into it.

:class:`EntropySourceContract` needs pytest, which the extra ``qr-sampler-core[testing]`` installs;
the doubles do not.
"""

from __future__ import annotations

from qr_sampler.testing.doubles import ConstantEntropySource, RecordedEntropySource

__all__ = ["ConstantEntropySource", "RecordedEntropySource"]
