# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: what identical bytes, logits and parameters must go on choosing.

``docs/numerics.md`` says which of these values may ever change. To write them again, which needs an
entry under *Numerics* in the changelog::

    python packages/qr-sampler-core/tests/test_core_golden.py --write
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from qr_sampler import (
    AMPLIFIERS,
    Baseline,
    FastSelector,
    ReferenceSelector,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Selector,
    Settings,
    SignalAmplifier,
)
from qr_sampler.temperature.base import STATISTICS_STEP, rounded
from qr_sampler.testing import ScriptedSource

DATA: Final = Path(__file__).parent / "data"
SELECTORS: Final[tuple[type[Selector[Any, Any]], ...]] = (ReferenceSelector, FastSelector)
Case = dict[str, Any]
