# SPDX-License-Identifier: Apache-2.0
"""How wrong logits may be, estimated from all tokens, and what no such error explains.

Two programs that compute the same model differ in the order of their sums: their logits differ by
rounding. How much that is depends on the model, the data type and the length of the text, so it is
estimated from the ledger itself. Of every token two differences say what the error of a logit is:
that of ln p, which is one logit's error over the temperature, and that of the entropy, which is a
weighted mean of all of them. Each is divided by the standard deviation that it would have if the
errors of the logits were independent with a standard deviation of 1. The scale sigma is the larger
of median / 0.6745 and 99th percentile / 2.576 (quantiles of the half-normal distribution) over the
tokens, of the larger of the two kinds: the median does not see a few forged tokens, the percentile
sees rows that are worse than others.

For every recorded number of a token we know the smallest error d such that errors of at most d in
every logit explain it. An honest number needs d of a few sigma at most (1.8 were the most in 2,100
tokens of an engine in bfloat16), and one which is forged usually needs one of the order of the
temperature, for it lies anywhere. The tolerance is 4 sigma where sigma is so large that a larger
tolerance would leave much of (0, 1) open, and 16 sigma in float32, where it would not, and where no
token may be beyond it. How much it leaves open is measured and said.

What if everything is forged, so that the estimate is of the forgery? Arithmetic in a data type has
a largest error that is plausible, see :data:`LIMITS`; sigma never counts for more, and a ledger
whose median is beyond it fails as a whole: another model, another prompt, another text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qr_sampler.arrays import FloatArray

__all__ = ["LIMITS", "DtypeRule", "Scale", "rule_for", "scale_of"]

_LEAST: Final = 1e-5
"""Recorded probabilities are good to 1e-5 of them, so that smaller errors cannot be seen."""

_MEDIAN: Final = 0.6745
_PERCENTILE: Final = 2.576


@dataclass(frozen=True, slots=True)
class DtypeRule:
    """What is accepted of an engine that computes in a data type."""

    name: str
    """The data type."""
    largest: float
    """The largest standard deviation of a logit's error that is plausible, in nats."""
    sigmas: float
    """The tolerance, in units of the estimated error. Errors are no normal numbers: some rows are
    worse than others, and the largest of a vocabulary counts."""
    misses: float
    """Largest share of tokens whose row may be another one than the model's: in half precision a
    model with experts may choose another expert where two are almost equal."""


LIMITS: Final = {
    rule.name: rule
    for rule in (
        DtypeRule("float32", 1e-3, 16.0, 0.0),
        DtypeRule("float16", 0.03, 4.0, 1e-3),
        DtypeRule("bfloat16", 0.125, 4.0, 1e-3),
    )
}
"""By data type. Logits are of the order of 16, and float32, float16 and bfloat16 round such numbers
to 1e-6, 0.008 and 0.06; what is before them adds as much again, with long texts several times."""


def rule_for(*dtypes: str) -> DtypeRule:
    """Returns the rule of the coarsest of *dtypes*; those that are not known count as float32."""
    known = [LIMITS.get(dtype, LIMITS["float32"]) for dtype in dtypes]
    return max(known, key=lambda rule: rule.largest)


@dataclass(frozen=True, slots=True)
class Scale:
    """The error of the logits."""

    typical: float
    """From the medians, in nats."""
    sigma: float
    """What the tolerance is made of: at least the typical one, at most the plausible one."""

    tolerance: float
    """The largest error that explains anything, in nats."""


def scale_of(samples: tuple[FloatArray, ...], rule: DtypeRule) -> Scale:
    """Returns the error of the logits.

    Args:
        samples: Of every kind of difference, its scaled sizes; NaN where it says nothing.
        rule: What is plausible.
    """
    typical, wide = 0.0, 0.0
    for sample in samples:
        seen = sample[~np.isnan(sample)]
        if seen.size:
            middle, high = np.quantile(seen, (0.5, 0.99))
            typical = max(typical, float(middle) / _MEDIAN)
            wide = max(wide, float(high) / _PERCENTILE)
    sigma = min(max(typical, wide, _LEAST), rule.largest)
    return Scale(typical, sigma, rule.sigmas * sigma)
