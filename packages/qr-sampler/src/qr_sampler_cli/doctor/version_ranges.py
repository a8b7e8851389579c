# SPDX-License-Identifier: Apache-2.0
"""Whether an installed version lies in the range that another distribution requires.

Only the release numbers are compared, so that ``0.32.0rc1`` and ``0.32.0+cu129`` count as 0.32.0:
builds of vLLM for a device carry labels, and what matters is which interfaces they have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Requirement", "release_of", "required", "satisfies"]

_REQUIREMENT = re.compile(
    r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*\(?(?P<range>[^;()]*)\)?\s*"
    r"(?:;(?P<marker>.*))?$"
)
_CLAUSE = re.compile(r"(?P<operator>~=|==|!=|<=|>=|<|>)\s*v?(?P<release>\d+(?:\.\d+)*)(?P<rest>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One ``Requires-Dist`` line of a distribution."""

    name: str
    """Name of the required distribution, lower case with hyphens."""
    range: str
    """Its range, such as ``<0.2,>=0.1``; empty when every version will do."""
    marker: str
    """When it is required; empty means always."""

    @classmethod
    def parse(cls, line: str) -> Requirement | None:
        """Returns the requirement of a metadata line, ``None`` for one of another form."""
        match = _REQUIREMENT.match(line)
        if match is None:
            return None
        return cls(
            name=re.sub(r"[._-]+", "-", match["name"]).lower(),
            range=match["range"].replace(" ", ""),
            marker=(match["marker"] or "").strip(),
        )

    def belongs_to(self, extra: str | None) -> bool:
        """Whether it comes with *extra*; ``None`` asks for what is required without any."""
        found = re.findall(r"extra\s*==\s*['\"]([^'\"]+)['\"]", self.marker)
        return extra in found if extra is not None else not found


def required(lines: list[str] | None, *, extra: str | None) -> list[Requirement]:
    """Returns the requirements among metadata *lines* that come with *extra*.

    Args:
        lines: As ``Distribution.requires`` has them; ``None`` is none.
        extra: Name of an extra, ``None`` for what is always required.
    """
    parsed = [Requirement.parse(line) for line in lines or ()]
    return [item for item in parsed if item is not None and item.belongs_to(extra)]


def release_of(version: str) -> tuple[int, ...] | None:
    """Returns the release numbers of *version*, ``None`` when it has none.

    Examples:
        >>> release_of("0.32.0+cu129"), release_of("unknown")
        ((0, 32, 0), None)
    """
    match = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    return None if match is None else tuple(map(int, match[1].split(".")))


def satisfies(version: str, range_: str) -> bool | None:
    """Returns whether *version* lies in *range_*, ``None`` when either is of an unknown form.

    Args:
        version: The installed version.
        range_: Clauses separated by commas, such as ``<0.2,>=0.1``.

    Examples:
        >>> satisfies("0.32.0+cu129", ">=0.30"), satisfies("0.29.1", ">=0.30")
        (True, False)
    """
    release = release_of(version)
    clauses = [_CLAUSE.fullmatch(clause.strip()) for clause in range_.split(",") if clause.strip()]
    if release is None:
        return None
    verdicts: list[bool] = []
    for clause in clauses:
        if clause is None:
            return None
        verdicts.append(_holds(release, clause))
    return all(verdicts)


def _holds(release: tuple[int, ...], clause: re.Match[str]) -> bool:
    bound = tuple(map(int, clause["release"].split(".")))
    operator = clause["operator"]
    if operator in ("==", "!=") and clause["rest"] == ".*":
        return (release[: len(bound)] == bound) is (operator == "==")
    width = max(len(release), len(bound))
    left, right = _padded(release, width), _padded(bound, width)
    if operator == "~=":
        return left >= right and release[: len(bound) - 1] == bound[:-1]
    return {
        "==": left == right,
        "!=": left != right,
        "<=": left <= right,
        ">=": left >= right,
        "<": left < right,
        ">": left > right,
    }[operator]


def _padded(release: tuple[int, ...], width: int) -> tuple[int, ...]:
    return release + (0,) * (width - len(release))
