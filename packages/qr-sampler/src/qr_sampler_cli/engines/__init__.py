# SPDX-License-Identifier: Apache-2.0
"""The engines that commands generate with: vLLM in this process, and those of qr-sampler-local.

All meet the protocol :class:`qr_sampler_local.engines.LocalEngine`.
"""

from __future__ import annotations

from qr_sampler_cli.engines.choice import EngineChoice, EngineName, choose_engine
from qr_sampler_cli.engines.loading import Deployment, deployed, load

__all__ = ["Deployment", "EngineChoice", "EngineName", "choose_engine", "deployed", "load"]
