# SPDX-License-Identifier: Apache-2.0
"""A protocol as a preregistration, in the headings of the form of the Open Science Framework.

Bowman et al., OSF Prereg Template (2020), https://doi.org/10.31222/osf.io/epgjd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qr_sampler_lab.experiments.checking.power import PlannedPower
from qr_sampler_lab.experiments.checking.remarks import Remark
from qr_sampler_lab.experiments.protocol import Arm, PrimaryEndpoint, Protocol, SecondaryEndpoint

__all__ = ["preregistration"]

_STATISTICS = {
    "mean_statistic": "mean of the amplifier's statistic",
    "mean_u": "mean of u",
    "variance": "variance of the amplifier's statistic",
    "ks": "distribution of u (Kolmogorov-Smirnov)",
    "cusum": "drift within the study (CUSUM)",
}


def preregistration(protocol: Protocol, power: PlannedPower, remarks: Iterable[Remark] = ()) -> str:
    """Returns the preregistration of a protocol as Markdown, which ends with a newline."""
    sections = {
        "Hypotheses": _hypotheses(protocol),
        "Design plan": _design(protocol),
        "Sampling plan": _sampling(protocol, power),
        "Variables": _variables(protocol),
        "Analysis plan": _analysis(protocol),
        "Data exclusion": _exclusions(protocol),
        "Inference criteria": _inference(protocol),
        "To consider": (f"- {remark.text}" for remark in remarks),
    }
    lines = [f"# {protocol.title}", "", f"{protocol.name}: a {protocol.kind} study."]
    for title, content in sections.items():
        body = list(content)
        if body:
            lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _hypotheses(protocol: Protocol) -> Iterator[str]:
    for number, hypothesis in enumerate(protocol.hypotheses, start=1):
        yield f"{number}. {hypothesis.strip()}"


def _design(protocol: Protocol) -> Iterator[str]:
    design = protocol.design
    yield f"- Unit of randomisation: {design.unit}, in {design.blocks:,} permuted blocks."
    yield f"- Every block holds, in random order: {_block(protocol)}."
    if design.unit == "session":
        yield f"- A session has {design.requests_per_session:,} requests of one arm."
    public, committed = (
        "a public round of drand after the seal",
        "a secret that the seal commits to",
    )
    origin = public if design.order == "drand" else committed
    yield f"- The order comes from {origin}."
    yield "- Blinding: arms have aliases until the study has ended and is unblinded."
    for run in protocol.schedule:
        place = run.at.replace("_", " ")
        yield f"- {run.phase.capitalize()}: {run.requests:,} requests of `{run.arm}`, {place}."
    yield f"- Model: {protocol.model.public_name}, with the digests of its files in the seal."


def _block(protocol: Protocol) -> str:
    return ", ".join(f"{arm.per_block} x `{arm.name}`" for arm in protocol.arms if arm.per_block)


def _sampling(protocol: Protocol, power: PlannedPower) -> Iterator[str]:
    primary, design = protocol.primary, protocol.design
    exactly = "exactly" if design.fixed_length else "at most"
    yield f"- {exactly.capitalize()} {design.tokens_per_request:,} tokens for every answer."
    for arm, tokens in protocol.tokens_per_arm.items():
        yield f"- N of `{arm}`: {tokens:,} tokens{'' if _fixed(protocol) else ' at most'}."
    yield (
        f"- Smallest effect of interest: {primary.smallest_effect:g} standard deviations per token "
        f"in the contrast. It is found with probability **{power.power:.3f}** ({power.method}); "
        f"wanted is {primary.power:g}, which takes {power.blocks_needed:,} blocks of a fixed N."
    )
    if protocol.stopping.rule == "fixed":
        yield "- Stopping rule: after all blocks. Nobody looks at results before."
    else:
        yield (
            f"- Stopping rule: when the e-value of the primary endpoint reaches "
            f"{1 / primary.alpha:g} (tau = {protocol.stopping.tau:g}), or after all blocks."
        )


def _fixed(protocol: Protocol) -> bool:
    return protocol.stopping.rule == "fixed" and protocol.design.fixed_length


def _variables(protocol: Protocol) -> Iterator[str]:
    yield "| arm | source | block | amplifier | intention | further options |"
    yield "|---|---|---|---|---|---|"
    for arm in protocol.arms:
        yield _row(arm)
    yield ""
    yield f"- Prompts: {', '.join(f'`{prompt.file}`' for prompt in protocol.prompts)}."
    for name, value in protocol.environment.items():
        yield f"- Setting: `{name}={value}`."
    for arm in protocol.arms:
        if arm.instructions:
            yield f"- Instructions of `{arm.name}`: {' '.join(arm.instructions.split())}"


def _row(arm: Arm) -> str:
    options = ", ".join(f"`{name}={value}`" for name, value in arm.options.items())
    intention = f"{arm.intention}, sham" if arm.sham else arm.intention
    cells = (
        f"`{arm.name}`",
        arm.source,
        f"{arm.block_bytes:,} B",
        arm.amplifier,
        intention,
        options,
    )
    return f"| {' | '.join(cells)} |"


def _analysis(protocol: Protocol) -> Iterator[str]:
    yield f"- Primary: {_endpoint(protocol.primary)}."
    for endpoint in protocol.secondary:
        yield f"- Secondary, `{endpoint.name}`: {_endpoint(endpoint)}."
    yield "- Everything else in the report is exploratory."


def _endpoint(endpoint: PrimaryEndpoint | SecondaryEndpoint) -> str:
    weights = " ".join(f"{weight:+g} `{arm}`" for arm, weight in endpoint.contrast.items())
    about = f" ({endpoint.about.strip()})" if endpoint.about else ""
    return f"{_STATISTICS[endpoint.statistic]}, {weights}, {endpoint.side}{about}"


def _exclusions(protocol: Protocol) -> Iterator[str]:
    exclusions = protocol.exclusions
    if exclusions.fallback:
        yield "- Tokens that the fallback decided."
    if exclusions.not_just_in_time:
        yield "- Tokens whose bytes preceded their logits."
    if exclusions.suspect_tokens == "exclude":
        yield "- Tokens whose bytes the health tests found suspect."
    if exclusions.first_tokens:
        yield f"- The first {exclusions.first_tokens:,} tokens of every answer."
    yield (
        "- Nothing else. The report shows the primary result without exclusions, too, and with and "
        "without the tokens of suspect bytes, if there are any."
    )


def _inference(protocol: Protocol) -> Iterator[str]:
    primary = protocol.primary
    if protocol.stopping.rule == "fixed":
        yield f"- The primary result counts if its p-value is below {primary.alpha:g}."
    else:
        yield f"- The primary result counts if its e-value reaches {1 / primary.alpha:g}."
    correction = {"holm": "Holm", "bh": "Benjamini and Hochberg"}[protocol.correction]
    if protocol.secondary:
        yield f"- P-values of secondary results are corrected after {correction}."
    if protocol.kind == "pilot":
        yield "- This is a pilot: whatever it finds is no test of the hypotheses."
