# SPDX-License-Identifier: Apache-2.0
"""What is decided before a study begins: the model of ``PROTOCOL.yaml``, and how it is read."""

from __future__ import annotations

from qr_sampler_lab.experiments.protocol.arms import Arm, ModelChoice, Prompt
from qr_sampler_lab.experiments.protocol.design import Design, Exclusions, ScheduledRun, Stopping
from qr_sampler_lab.experiments.protocol.endpoints import PrimaryEndpoint, SecondaryEndpoint
from qr_sampler_lab.experiments.protocol.files import parse_protocol, read_protocol
from qr_sampler_lab.experiments.protocol.model import PROTOCOL_VERSION, Protocol

__all__ = [
    "PROTOCOL_VERSION",
    "Arm",
    "Design",
    "Exclusions",
    "ModelChoice",
    "PrimaryEndpoint",
    "Prompt",
    "Protocol",
    "ScheduledRun",
    "SecondaryEndpoint",
    "Stopping",
    "parse_protocol",
    "read_protocol",
]
