# SPDX-License-Identifier: Apache-2.0
"""What speaks against a protocol as it stands: errors that prevent a seal, and warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from qr_sampler.amplification.baseline import Baseline
from qr_sampler.components.amplifiers import amplifier_named
from qr_sampler.components.sources import ENTROPY_SOURCES
from qr_sampler.entropy.draw import JitClass
from qr_sampler.errors import ConfigError, PluginError, QRSamplerError
from qr_sampler.settings import END_REQUEST, Settings
from qr_sampler_lab.experiments.checking.power import PlannedPower, effective_tokens
from qr_sampler_lab.experiments.comparing import digests_of_files
from qr_sampler_lab.experiments.environment import (
    check_arm,
    engine_settings,
    known_settings,
)
from qr_sampler_lab.experiments.protocol import Arm, Protocol
from qr_sampler_lab.experiments.protocol.arm_sources import with_kinds
from qr_sampler_lab.experiments.study import Study

__all__ = ["Remark", "remarks_on"]

_VISIBLE: Final = 1.36
"""Critical value of Kolmogorov's statistic at 5 % (Smirnov 1948)."""

_LONGEST_BASELINE_SHARE: Final = 0.05
"""Growth of the standard error by a baseline from which on it is remarked upon."""


class Remark(NamedTuple):
    """One thing to consider."""

    prevents: bool
    """Whether the study cannot be sealed like this here."""
    text: str
    """What it is, and what to do."""


def remarks_on(study: Study, power: PlannedPower) -> list[Remark]:
    """Returns what speaks against the protocol of a study, errors first."""
    protocol = study.protocol
    remarks = [*_errors(study), *_of_power(protocol, power), *_of_contrast(protocol)]
    remarks += [*_of_design(protocol), *_of_environment(protocol)]
    try:
        engine_settings(protocol, study.directory)
        of_kinds = with_kinds(protocol, study.directory)
        settings = engine_settings(of_kinds, study.directory)
    except ConfigError as error:
        remarks.append(Remark(True, str(error)))
    else:
        remarks += _of_settings(study, of_kinds, settings)
    return sorted(remarks, key=lambda remark: not remark.prevents)


def _errors(study: Study) -> Iterator[Remark]:
    try:
        digests_of_files(study)
    except ConfigError as error:
        yield Remark(True, str(error))
    if not study.model_path.is_dir():
        yield Remark(
            True,
            f"the model {study.protocol.model.path} is no directory here; download it and name the "
            "directory",
        )


def _of_settings(study: Study, protocol: Protocol, settings: Settings) -> Iterator[Remark]:
    """Yields remarks on the arms of *protocol*, each with the kind of its source."""
    for arm in protocol.arms:
        try:
            check_arm(arm, settings)
        except ConfigError as error:
            yield Remark(True, str(error))
        yield from _of_source(arm)
        yield from _of_lattice(arm, protocol, settings)
    yield from _of_baseline(study, settings)
    if protocol.exclusions.fallback and settings.fallback_mode != END_REQUEST:
        yield Remark(
            False,
            f"QR_FALLBACK_MODE is {settings.fallback_mode}: while a device is away, tokens of "
            "another source continue its answers, and are left out afterwards; end_request "
            "avoids that",
        )


def _of_power(protocol: Protocol, power: PlannedPower) -> Iterator[Remark]:
    primary, blocks = protocol.primary, protocol.design.blocks
    if power.power < primary.power:
        more = (
            f"; {power.blocks_needed:,} blocks instead of {blocks:,} reach it by a fixed N"
            if power.blocks_needed > blocks
            else ""
        )
        yield Remark(
            False,
            f"underpowered: an effect of {primary.smallest_effect:g} is found with probability "
            f"{power.power:.3f}, and {primary.power:g} was wanted{more}",
        )


def _of_contrast(protocol: Protocol) -> Iterator[Remark]:
    if not protocol.primary.compares_arms:
        yield Remark(
            False,
            "the primary contrast compares with theory, not with another arm: a static bias of the "
            "device or an error of its baseline counts as an effect; give the arms weights that "
            "add up to 0",
        )
    weights = protocol.primary.contrast
    scale = math.fsum(abs(weight) for weight in weights.values())
    if protocol.primary.compares_arms and not math.isclose(scale, 2.0):
        yield Remark(
            False,
            "the weights of the primary contrast do not add up to 1 and -1, so the smallest effect "
            "is not a difference of two means",
        )


def _of_design(protocol: Protocol) -> Iterator[Remark]:
    design = protocol.design
    often = {arm.per_block for arm in protocol.arms if arm.per_block}
    if len([arm for arm in protocol.arms if arm.per_block]) < 2:
        yield Remark(False, "there is one arm in the blocks only: nothing is randomised")
    if len(often) > 1:
        yield Remark(
            False, "arms occur with different frequency, so counts tell which alias is which"
        )
    if design.order == "secret":
        yield Remark(
            False,
            "the order comes from a secret: whoever seals could have tried secrets until the order "
            "suited; order: drand excludes that",
        )
    if not design.fixed_length:
        yield Remark(
            False,
            "answers end where u decides, so N is an upper bound and means per answer are biased; "
            "tokens are pooled",
        )


def _of_environment(protocol: Protocol) -> Iterator[Remark]:
    known = known_settings()
    for name in protocol.environment:
        if name not in known:
            yield Remark(
                False,
                f"{name} is no setting of ours; if no other package reads it, it does nothing",
            )


def _of_source(arm: Arm) -> Iterator[Remark]:
    try:
        kind = ENTROPY_SOURCES.load(arm.source)
    except PluginError:
        # What checks the arm has said so.
        return
    label = getattr(kind, "jit_class", JitClass.UNKNOWN)
    if label in (JitClass.PSEUDO, JitClass.BEACON, JitClass.UNKNOWN):
        told = {
            JitClass.PSEUDO: "pseudo-random, a control and no measurement",
            JitClass.BEACON: "public values",
            JitClass.UNKNOWN: "bytes whose age nothing bounds",
        }[label]
        yield Remark(False, f"arm {arm.name!r}: class {label.value} of {arm.source}: {told}")


def _of_lattice(arm: Arm, protocol: Protocol, settings: Settings) -> Iterator[Remark]:
    """Remarks on blocks whose u is visibly discrete at this N: from (1.36 / D)² tokens on."""
    tokens = protocol.tokens_per_arm.get(arm.name, 0)
    try:
        resolution = amplifier_named(arm.amplifier, settings).resolution(arm.block_bytes)
    except (QRSamplerError, ValueError):
        return
    if resolution is None or not resolution.ks_distance:
        return
    visible = (_VISIBLE / resolution.ks_distance) ** 2
    if tokens > visible / 2:
        yield Remark(
            False,
            f"arm {arm.name!r}: with {arm.block_bytes:,} bytes and {arm.amplifier} the law of u is "
            f"visibly not uniform from {visible:,.0f} tokens on, and N is {tokens:,}; tests of "
            "shape need the exact law",
        )


def _of_baseline(study: Study, settings: Settings) -> Iterator[Remark]:
    """Remarks on a baseline too short for N: the standard error grows by sqrt(1 + N / N_b)."""
    protocol = study.protocol
    if settings.baseline_file is None:
        return
    try:
        baseline = Baseline.load(settings.baseline_file)
    except ConfigError as error:
        yield Remark(True, str(error))
        return
    tokens = effective_tokens(dict(protocol.primary.contrast), protocol.tokens_per_arm)
    growth = math.sqrt(1.0 + tokens / baseline.blocks)
    if not protocol.primary.compares_arms and growth > 1.0 + _LONGEST_BASELINE_SHARE:
        yield Remark(
            False,
            f"the baseline of {baseline.blocks:,} blocks is too short for {tokens:,.0f} tokens: it "
            f"widens the standard error by a factor of {growth:.2f}",
        )
