# SPDX-License-Identifier: Apache-2.0
"""Whether vLLM will load the plugin, once, and what else it will load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from qr_sampler_cli.doctor.examination import Examination
from qr_sampler_cli.doctor.request import EngineRequest
from qr_sampler_cli.engines.plugin import PLUGIN_GROUP, PLUGIN_PACKAGE
from qr_sampler_cli.findings.finding import Finding, ReportSection
from qr_sampler_cli.remedies import from_clone

__all__ = ["SECTION", "flag_findings", "front_end_findings", "load_findings", "plugin_findings"]

SECTION: Final = ReportSection("plugin")

ENTRY_POINT: Final = "qr_sampler"
"""Name of our entry point."""

FRONT_END_GROUPS: Final = (
    "vllm.general_plugins",
    "vllm.stat_logger_plugins",
    "vllm.endpoint_plugins",
)
"""Groups of what a server needs to refuse engines that drop the plugin, and to show its status."""

ALLOWED: Final = "VLLM_PLUGINS"
"""Variable that names the plugins of these groups which vLLM may load; unset allows all."""

INSTALL_AGAIN: Final = "install it again " + from_clone(
    "qr-sampler-vllm", options="--force-reinstall --no-deps"
)


def plugin_findings() -> Iterator[Finding]:
    """Yields whether our entry point is there and alone."""
    points = list(entry_points(group=PLUGIN_GROUP))
    ours = [point for point in points if _is_ours(point.value)]
    if not ours:
        yield SECTION.problem(
            "entry point",
            f"no entry point of {PLUGIN_PACKAGE} in the group {PLUGIN_GROUP}, so vLLM would choose "
            "the tokens itself",
            INSTALL_AGAIN,
        )
    claimants = [point for point in points if _is_ours(point.value) or point.name == ENTRY_POINT]
    if len(claimants) > 1:
        origins = [_origin(point) for point in claimants]
        yield SECTION.problem(
            "entry point",
            f"claimed by {' and '.join(origins)}: vLLM loads each of them",
            "uninstall all of them but qr-sampler-vllm",
        )
    elif ours:
        yield SECTION.ok("entry point", f"{ours[0].name} = {ours[0].value} from {_origin(ours[0])}")
    yield from _others(points, claimants)


def front_end_findings() -> Iterator[Finding]:
    """Yields whether a server will check its engines and show their status."""
    lost = "a server could not refuse engines that drop qr-sampler, or show their status"
    absent = [group for group in FRONT_END_GROUPS if not _has_ours(group)]
    if absent:
        message = f"nothing of {PLUGIN_PACKAGE} in {', '.join(absent)}: {lost}"
        yield SECTION.warning("front end", message, INSTALL_AGAIN)
        return
    allowed = os.environ.get(ALLOWED)
    if allowed is not None and ENTRY_POINT not in allowed.split(","):
        yield SECTION.warning(
            "front end",
            f"{ALLOWED}={allowed!r} leaves {ENTRY_POINT} out: {lost}",
            f"add {ENTRY_POINT} to {ALLOWED}",
        )
        return
    yield SECTION.ok("front end", "a server checks its engines and shows their status")


def flag_findings(request: EngineRequest) -> Iterator[Finding]:
    """Yields what ``--logits-processors`` adds to what is installed.

    Args:
        request: How vLLM is going to be started.
    """
    for target in request.logits_processors:
        if _is_ours(target):
            yield SECTION.problem(
                "--logits-processors",
                f"{target} is loaded by its entry point already; a second one would draw twice per "
                "token and is refused",
                f"remove {target} from --logits-processors",
            )
        else:
            yield SECTION.warning(
                "--logits-processors",
                f"{target} is loaded after qr-sampler and sees rows with one token left",
                "make sure that it forces no token; remove it if it does",
            )


def load_findings(examined: Examination) -> Iterator[Finding]:
    """Yields which processors load, ours among them.

    Args:
        examined: What the import has shown.
    """
    if examined.failure:
        yield SECTION.skipped("loads", "unknown, because the process that tried it ended early")
        return
    for processor in examined.processors:
        if processor.error:
            yield SECTION.problem(
                "loads",
                f"{processor.target} does not load, which keeps vLLM from starting: "
                f"{processor.error}",
                INSTALL_AGAIN
                if _is_ours(processor.target)
                else "uninstall or repair the package that it belongs to",
            )
        elif _is_ours(processor.target):
            runners = {"V1": processor.serves_v1, "V2": processor.serves_v2}
            served = " and ".join(name for name, serves in runners.items() if serves)
            runner = f"for Model Runner {served}" if served else "for no model runner without vLLM"
            yield SECTION.ok("loads", f"{processor.target}, {runner}")


def _others(points: list[EntryPoint], claimants: list[EntryPoint]) -> Iterator[Finding]:
    """Yields the processors of others, each with its place in the order in which they run."""
    positions = [points.index(point) for point in claimants] or [len(points)]
    for position, point in enumerate(points):
        if point in claimants:
            continue
        if position < positions[0]:
            order = "before qr-sampler, which may draw from logits that it has changed"
        else:
            order = "after qr-sampler and sees rows with one token left"
        yield SECTION.warning(
            "other processors",
            f"{point.name} = {point.value} from {_origin(point)} is loaded {order}",
            "make sure that it forces no token; uninstall it if it does",
        )


def _has_ours(group: str) -> bool:
    return any(_is_ours(point.value) for point in entry_points(group=group))


def _is_ours(target: str) -> bool:
    return target.partition(":")[0].partition(".")[0].strip() == PLUGIN_PACKAGE


def _origin(point: EntryPoint) -> str:
    """Returns the distribution of *point* and its version, as far as its metadata say."""
    if point.dist is None:
        return "an unknown package"
    metadata = point.dist.metadata
    fields = [metadata[key] for key in ("Name", "Version") if key in metadata]
    return " ".join(fields) or "an unknown package"
