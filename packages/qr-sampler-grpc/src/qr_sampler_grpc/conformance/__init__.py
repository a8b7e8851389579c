# SPDX-License-Identifier: Apache-2.0
"""Whether an entropy server, in whatever language, keeps the wire contract.

The cases are data, in ``cases.json`` beside this file, for those who want to run them by other
means. :func:`run_cases` runs them over a channel; it shares no code with the entropy source, so
that a mistake of the one cannot hide in the other.
"""

from __future__ import annotations

from qr_sampler_grpc.conformance.cases import CASES_FILE, Case, load_cases
from qr_sampler_grpc.conformance.results import CaseResult, Outcome
from qr_sampler_grpc.conformance.runner import Caller, run_cases

__all__ = ["CASES_FILE", "Caller", "Case", "CaseResult", "Outcome", "load_cases", "run_cases"]
