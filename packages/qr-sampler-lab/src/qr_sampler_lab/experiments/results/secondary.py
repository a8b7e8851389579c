# SPDX-License-Identifier: Apache-2.0
"""Secondary endpoints: reported, corrected for their number, and deciding nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis import Cusum, EmpiricalLaw, benjamini_hochberg, holm, two_sample_ks
from qr_sampler_lab.experiments.protocol import Protocol, SecondaryEndpoint
from qr_sampler_lab.experiments.results.contrast import contrast_test
from qr_sampler_lab.experiments.results.selection import Selection, uniform_of

__all__ = ["secondary_results"]

_FEWEST: Final = 20
"""Tokens of an arm below which the limit laws of these tests say nothing."""


def secondary_results(
    protocol: Protocol, aliases: Mapping[str, str], selection: Selection
) -> list[dict[str, Any]]:
    """Returns the results of all secondary endpoints, in the order of the protocol.

    Args:
        protocol: Names them, and their correction.
        aliases: Alias by name of the arm.
        selection: The tokens that count.
    """
    results = [_result(endpoint, aliases, selection) for endpoint in protocol.secondary]
    said = [result for result in results if "p_value" in result]
    correct = holm if protocol.correction == "holm" else benjamini_hochberg
    if not said:
        return results
    corrected = correct([result["p_value"] for result in said]).tolist()
    for result, p_value in zip(said, corrected, strict=True):
        result["p_corrected"] = p_value
        result["correction"] = protocol.correction
    return results


def _result(
    endpoint: SecondaryEndpoint, aliases: Mapping[str, str], selection: Selection
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": endpoint.name,
        "statistic": endpoint.statistic,
        "contrast": dict(endpoint.contrast),
    }
    try:
        return {**told, **_figures(endpoint, aliases, selection)}
    except ConfigError as error:
        return {**told, "cannot_be_said": str(error)}


def _figures(
    endpoint: SecondaryEndpoint, aliases: Mapping[str, str], selection: Selection
) -> dict[str, Any]:
    if endpoint.statistic in ("mean_statistic", "mean_u"):
        name = endpoint.statistic
        result = contrast_test(
            {arm: selection.moments(name, aliases[arm]) for arm in endpoint.contrast},
            endpoint.contrast,
            between_arms=endpoint.compares_arms,
            alternative=endpoint.side,
        )
        return {"score": result.score, "estimate": result.estimate, "p_value": result.p_value}
    samples = [selection.scores("mean_u", aliases[arm]) for arm in endpoint.contrast]
    if min(map(len, samples)) < _FEWEST:
        raise ConfigError(f"an arm has fewer than {_FEWEST} tokens that count")
    if endpoint.statistic == "cusum":
        return _drift(samples)
    if len(samples) != 2:
        raise ConfigError(f"{endpoint.statistic} compares two arms, not {len(samples)}")
    if endpoint.statistic == "ks":
        test = two_sample_ks(*map(_law, samples))
        return {"score": test.statistic, "p_value": test.p_value}
    # The median of the absolute deviations, so that no law is assumed: M. B. Brown and A. B.
    # Forsythe, "Robust tests for the equality of variances", J. Amer. Statist. Assoc. 69 (1974).
    levene = stats.levene(samples[0], samples[1], center="median")
    return {"score": float(levene.statistic), "p_value": float(levene.pvalue)}


def _law(sample: NDArray[np.float64]) -> EmpiricalLaw:
    law = EmpiricalLaw()
    law.add(uniform_of(sample))
    return law


def _drift(samples: list[NDArray[np.float64]]) -> dict[str, Any]:
    """Returns the worst drift within an arm, by the arms' p-values corrected for their number."""
    results = []
    for sample in samples:
        cusum = Cusum()
        cusum.add(sample)
        results.append(cusum.result())
    worst = int(np.argmin([result.p_value for result in results]))
    return {
        "score": float(results[worst].statistic),
        "p_value": min(1.0, len(results) * float(results[worst].p_value)),
    }
