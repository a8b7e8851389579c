# SPDX-License-Identifier: Apache-2.0
"""Temperature from how undecided the model is, how evenly, and how unusually for the request."""

from __future__ import annotations

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.rows import Rows
from qr_sampler.temperature.base import LogitStatistics, TemperatureStrategy

__all__ = ["VarentropyTemperatureStrategy"]


class VarentropyTemperatureStrategy(TemperatureStrategy):
    """Adds weighted terms for entropy, varentropy and drift to a base temperature.

    T = clip(base + entropy_weight * H + variance_weight * V + drift_weight * (H - m), min, max),
    where all parameters are the settings ``varentropy_*``, H is the Shannon entropy in nats, V the
    varentropy in nats squared and m the running mean of H over the tokens that the request has
    emitted, see :class:`~qr_sampler.running_mean.RunningMean`. The drift term is 0 as long as
    there is no running mean.

    H is the mean and V the variance of the surprise -ln p: both are 0 for a certain token; equally
    probable tokens have V = 0; a few likely tokens with a long tail behind them have a large V.

    Source: the name and definition of varentropy are those of Kontoyiannis and Verdú (2013),
    "Optimal lossless compression: source varentropy and dispersion", IEEE ISIT. The linear rule is
    this project's; its signs and weights are settings.
    """

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> FloatArray:
        """Returns the temperatures. Shape ``(B,)``."""
        entropy = statistics.entropy_nats
        drift = np.where(np.isnan(rows.running_entropy), 0.0, entropy - rows.running_entropy)
        raw = (
            rows.column("varentropy_base_temp")
            + rows.column("varentropy_entropy_weight") * entropy
            + rows.column("varentropy_variance_weight") * statistics.varentropy_nats2
            + rows.column("varentropy_drift_weight") * drift
        )
        temperatures: FloatArray = np.clip(
            raw, rows.column("varentropy_min_temp"), rows.column("varentropy_max_temp")
        )
        return temperatures
