# SPDX-License-Identifier: Apache-2.0
"""One page of text: the primary result first, then what puts it in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qr_sampler_lab.experiments.protocol import Protocol

__all__ = ["report_text"]


def report_text(report: Mapping[str, Any], protocol: Protocol) -> str:
    """Returns the page.

    Args:
        report: What ``report.json`` holds.
        protocol: What was planned.
    """
    return "\n".join([*_lines(report, protocol)]) + "\n"


def _lines(report: Mapping[str, Any], protocol: Protocol) -> Iterator[str]:
    figures = report["figures"]
    for stamp in report["stamps"]:
        yield f"NOT AS SEALED: {stamp}"
    yield f"{report['title']} ({report['study']}, {report['kind']})"
    yield ""
    yield from _primary(figures["primary"], aborted=report["ended"] == "aborted")
    yield f"  by blocks: {_by_blocks(figures['primary_by_blocks'])}"
    yield f"  without exclusions: {_contrast(figures['primary_without_exclusions'])}"
    yield from _suspect_tokens(figures.get("suspect_tokens"))
    other = figures["primary_with_the_other_number"]
    yield f"  by {other['statistic']}: {_contrast(other)}"
    yield ""
    yield from _standing(report)
    yield ""
    yield from _arms(figures["arms"])
    if figures["block_lengths"] is not None:
        yield ""
        yield from _block_lengths(figures["block_lengths"])
    if figures["latency"] is not None:
        yield ""
        yield _latency(figures["latency"])
    if figures["secondary"]:
        yield ""
        yield "Secondary endpoints, which decide nothing:"
        for result in figures["secondary"]:
            yield f"  {result['name']} ({result['statistic']}): {_secondary(result)}"
    yield ""
    yield "Hypotheses, as sealed:"
    for hypothesis in protocol.hypotheses:
        yield f"  {hypothesis}"
    yield f"Seal {report['seal']}"


def _primary(primary: Mapping[str, Any], *, aborted: bool) -> Iterator[str]:
    contrast = " ".join(f"{weight:+g} {arm}" for arm, weight in primary["contrast"].items())
    note = " (exploratory, since the study was aborted)" if aborted else ""
    yield f"Primary result{note}: {'found' if primary['found'] else 'not found'}"
    yield f"  {primary['statistic']}, {contrast}, {primary['side']}, alpha {primary['alpha']:g}"
    yield f"  {_contrast(primary)}"
    if "e_value" in primary:
        told = primary["e_value"]
        when = f"reached after block {told['crossed_at']}" if told["crossed_at"] else "not reached"
        yield (
            f"  e-value over {told['blocks']} blocks: largest log E {told['log_e_max']:.3f}, "
            f"anytime-valid p {told['p_value']:.4g}; 1/alpha {when}"
        )
        yield "  Intervals, and all p below, are those of a fixed N: looks make them too good."


def _suspect_tokens(told: Mapping[str, Any] | None) -> Iterator[str]:
    """Yields the primary result with and without tokens of suspect bytes, the sealed way first."""
    if told is None:
        yield "  with and without suspect tokens: the same, there are none"
        return
    words = {"count": "counted", "exclude": "left out"}
    for rule in sorted(words, key=lambda rule: rule != told["sealed"]):
        note = ", as sealed" if rule == told["sealed"] else ""
        yield f"  {told['tokens']:,} suspect tokens {words[rule]}{note}: {_contrast(told[rule])}"


def _by_blocks(result: Mapping[str, Any]) -> str:
    if "cannot_be_said" in result:
        return f"cannot be said: {result['cannot_be_said']}"
    return (
        f"score {result['score']:+.3f}, p {result['p_value']:.4g} ({result['blocks']:,} blocks, "
        f"whose scores have sd {result['deviation']:.3f}; 1 in theory)"
    )


def _contrast(result: Mapping[str, Any]) -> str:
    if "cannot_be_said" in result:
        return f"cannot be said: {result['cannot_be_said']}"
    tokens = ", ".join(f"{arm} {count:,}" for arm, count in result["tokens"].items())
    return (
        f"{result['estimate']:+.5f} [{result['low']:+.5f}, {result['high']:+.5f}], score "
        f"{result['score']:+.3f}, p {result['p_value']:.4g} (tokens: {tokens})"
    )


def _secondary(result: Mapping[str, Any]) -> str:
    if "cannot_be_said" in result:
        return f"cannot be said: {result['cannot_be_said']}"
    return (
        f"score {result['score']:+.3f}, p {result['p_value']:.4g}, corrected "
        f"{result['p_corrected']:.4g} ({result['correction']})"
    )


def _standing(report: Mapping[str, Any]) -> Iterator[str]:
    sessions = report["sessions"]
    ended = report["ended"] + (f": {report['reason']}" if report["reason"] else "")
    yield (
        f"The study is {ended}. Sessions: {sessions['planned']:,} planned at most, "
        f"{sessions['begun']:,} begun, {sessions['ended']:,} ended; resumed {report['resumed']} "
        f"times, {report['marks']} marks."
    )
    if report["ended"] == "aborted":
        yield "It was aborted before its rule ended it, so its primary result is exploratory."


def _arms(arms: Mapping[str, Any]) -> Iterator[str]:
    for arm, told in arms.items():
        excluded = ", ".join(f"{count:,} {why}" for why, count in told["excluded"].items())
        statistic, u = told["mean_statistic"], told["mean_u"]
        yield (
            f"  {arm} ({told['alias']}): {told['tokens']:,} tokens count; excluded: "
            f"{excluded or 'none'}; statistic {_number(statistic['mean'])} sd "
            f"{_number(statistic['deviation'])}; u in sd from 1/2 {_number(u['mean'])}"
        )


def _block_lengths(told: Mapping[str, Any]) -> Iterator[str]:
    yield "Block lengths: influence predicts z growing with sqrt(bytes), selection a constant z."
    if "cannot_be_said" in told:
        yield f"  cannot be said: {told['cannot_be_said']}"
        return
    for arm in told["arms"]:
        yield f"  {arm['block_bytes']:,} bytes: mean z {arm['mean']:+.5f} +- {arm['error']:.5f}"
    yield (
        f"  influence: {told['influence']:+.3g} sqrt(bytes), chi2 {told['influence_chi2']:.2f}, p "
        f"{told['influence_p']:.4g}; selection: {told['selection']:+.5f}, chi2 "
        f"{told['selection_chi2']:.2f}, p {told['selection_p']:.4g} ({told['degrees']} degrees)"
    )
    yield (
        f"  log likelihood ratio of influence over selection {told['log_likelihood_ratio']:+.3f}; "
        f"chi2 of no effect {told['null_chi2']:.2f} ({told['degrees'] + 1} degrees)"
    )


def _latency(told: Mapping[str, Any]) -> str:
    if "cannot_be_said" in told:
        return f"Whether latency tells the source cannot be said: {told['cannot_be_said']}"
    share = f"{told['balanced_accuracy']:.1%} [{told['low']:.1%}, {told['high']:.1%}]"
    verdict = "does not give it away" if told["blind"] else "may give it away"
    return f"Latency alone names the source of {share} of {told['draws']:,} draws: it {verdict}."


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.5f}"
