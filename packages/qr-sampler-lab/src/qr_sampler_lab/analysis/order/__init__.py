# SPDX-License-Identifier: Apache-2.0
"""Are the numbers independent in time: drift, stickiness, alternation, wandering?"""

from __future__ import annotations

from qr_sampler_lab.analysis.order.autocorrelation import LjungBox
from qr_sampler_lab.analysis.order.block_means import BlockMeans
from qr_sampler_lab.analysis.order.cusum import Cusum
from qr_sampler_lab.analysis.order.runs import Runs

__all__ = ["BlockMeans", "Cusum", "LjungBox", "Runs"]
