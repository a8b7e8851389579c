# SPDX-License-Identifier: Apache-2.0
"""Checks that an entropy server, in any language, honours the wire contract.

The cases are data, in ``cases.json`` beside this file, for anyone who wants to run them another
way. :func:`run_cases` runs them over a channel; it shares no code with the entropy source, so that
a mistake in one cannot hide in the other.
"""

from __future__ import annotations

from qr_sampler_grpc.conformance.cases import CASES_FILE, Case, load_cases
from qr_sampler_grpc.conformance.results import CaseResult, Outcome
from qr_sampler_grpc.conformance.runner import Caller, run_cases

__all__ = ["CASES_FILE", "Caller", "Case", "CaseResult", "Outcome", "load_cases", "run_cases"]
