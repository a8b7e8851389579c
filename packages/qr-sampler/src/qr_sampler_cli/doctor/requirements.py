# SPDX-License-Identifier: Apache-2.0
"""What an installed distribution requires, and whether a version is within a range.

Only release numbers are compared, so that ``0.32.0rc1`` and ``0.32.0+cu129`` count as 0.32.0:
builds of vLLM for a device carry labels, and what matters is which interfaces they have.
"""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

__all__ = ["required", "satisfies"]


def required(lines: Iterable[str] | None, *, extra: str = "") -> dict[str, SpecifierSet]:
    """Returns the range of each requirement that applies here, by its canonical name.

    Args:
        lines: As ``Distribution.requires`` has them; malformed ones are left out.
        extra: An extra that is installed, too.
    """
    ranges = {}
    for line in lines or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            ranges[str(canonicalize_name(requirement.name))] = requirement.specifier
    return ranges


def satisfies(version: str, allowed: SpecifierSet) -> bool | None:
    """Returns whether the release of *version* is within a range, ``None`` if it is malformed.

    Examples:
        >>> satisfies("0.32.0+cu129", SpecifierSet(">=0.30")), satisfies("unknown", SpecifierSet())
        (True, None)
    """
    try:
        release = Version(version).base_version
    except InvalidVersion:
        return None
    return allowed.contains(release, prereleases=True)
