# SPDX-License-Identifier: Apache-2.0
"""Statistics of tokens: arrays in, frozen results out; no files, no plots.

Everything that is added comes in chunks, in order of time where order matters, and memory does not
grow with the number of tokens. The unit is the token, see :mod:`qr_sampler_lab.analysis.unit`.

* :class:`Battery` runs all tests of one column; :func:`compare` compares two arms.
* :class:`EProcess` may be looked at after every token.
* :mod:`~qr_sampler_lab.analysis.power` says how many tokens an effect needs.
* :mod:`~qr_sampler_lab.analysis.latency` says whether a control is blind.
"""

from __future__ import annotations

from qr_sampler_lab.analysis.anytime import (
    EProcess,
    EProcessResult,
    PairedStreams,
    fixed_boundary,
    log_e_values,
    smallest_tau_width,
    ville_boundary,
)
from qr_sampler_lab.analysis.battery import Battery, compare
from qr_sampler_lab.analysis.bits import ONES_SUM_CORRELATION, BlockBits
from qr_sampler_lab.analysis.combination import (
    FunnelData,
    NetworkVariance,
    Sensitivity,
    Session,
    benjamini_hochberg,
    discards_test,
    funnel,
    holm,
    stouffer,
)
from qr_sampler_lab.analysis.exploratory import (
    ChangeOfEvidence,
    SplitMeans,
    WindowSensitivity,
    change_of_evidence,
    window_sensitivity,
)
from qr_sampler_lab.analysis.latency import LatencyResult, classify_latency
from qr_sampler_lab.analysis.location import (
    UNIFORM_DEVIATION,
    UNIFORM_MEAN,
    Moments,
    difference_test,
    mean_test,
    uniform_mean_test,
)
from qr_sampler_lab.analysis.order import BlockMeans, Cusum, LjungBox, Runs
from qr_sampler_lab.analysis.power import (
    EProcessPower,
    e_process_power,
    effect_of_bit_bias,
    effect_of_byte_mean,
    location_power,
    location_sample_size,
)
from qr_sampler_lab.analysis.results import Alternative, Interval, TestResult
from qr_sampler_lab.analysis.shape import (
    EmpiricalLaw,
    LatticeLaw,
    Visibility,
    anderson_darling,
    kolmogorov_smirnov,
    tail_test,
    two_sample_ks,
    variance_ratio_test,
    variance_test,
)
from qr_sampler_lab.analysis.unit import answer_means

__all__ = [
    "ONES_SUM_CORRELATION",
    "UNIFORM_DEVIATION",
    "UNIFORM_MEAN",
    "Alternative",
    "Battery",
    "BlockBits",
    "BlockMeans",
    "ChangeOfEvidence",
    "Cusum",
    "EProcess",
    "EProcessPower",
    "EProcessResult",
    "EmpiricalLaw",
    "FunnelData",
    "Interval",
    "LatencyResult",
    "LatticeLaw",
    "LjungBox",
    "Moments",
    "NetworkVariance",
    "PairedStreams",
    "Runs",
    "Sensitivity",
    "Session",
    "SplitMeans",
    "TestResult",
    "Visibility",
    "WindowSensitivity",
    "anderson_darling",
    "answer_means",
    "benjamini_hochberg",
    "change_of_evidence",
    "classify_latency",
    "compare",
    "difference_test",
    "discards_test",
    "e_process_power",
    "effect_of_bit_bias",
    "effect_of_byte_mean",
    "fixed_boundary",
    "funnel",
    "holm",
    "kolmogorov_smirnov",
    "location_power",
    "location_sample_size",
    "log_e_values",
    "mean_test",
    "smallest_tau_width",
    "stouffer",
    "tail_test",
    "two_sample_ks",
    "uniform_mean_test",
    "variance_ratio_test",
    "variance_test",
    "ville_boundary",
    "window_sensitivity",
]
