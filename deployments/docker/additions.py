# SPDX-License-Identifier: Apache-2.0
"""Print what an image lacks of a lock file, as requirements with hashes.

    python additions.py --wheels /wheels --locked /locked.txt > additions.txt

What the image holds stays as it is. A version of it that our packages exclude ends the build,
except for the distributions named with `--replace`, whose locked version is printed as well.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def locked_in(text: str) -> Iterator[tuple[Requirement, str]]:
    """Yield each requirement of `uv export` that applies here, with its lines."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for entry in "\n".join(kept).replace("\\\n", "\0").splitlines():
        if entry.strip():
            requirement = Requirement(entry.partition("\0")[0])
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement, entry.replace("\0", "\\\n")


def required_by(wheels: Path) -> Iterator[Requirement]:
    """Yield what the wheels of a folder require, with all of their extras."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
            metadata = HeaderParser().parsestr(archive.read(name).decode())
        extras = ["", *metadata.get_all("Provides-Extra", [])]
        for text in metadata.get_all("Requires-Dist", []):
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                yield requirement


def installed(name: str) -> str | None:
    """Return the version of a distribution in this environment."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def refused_here(wheels: Path) -> dict[str, str]:
    """Return which installed distributions our packages cannot be used with, and why."""
    found: dict[str, str] = {}
    for requirement in required_by(wheels):
        present = installed(requirement.name)
        if present and not requirement.specifier.contains(present, prereleases=True):
            name = canonicalize_name(requirement.name)
            found[name] = f"{name} {present} is in the image, {requirement} is required"
    return found


def main() -> int:
    """Print the additions; return 1 where the image holds what our packages exclude."""
    parser = argparse.ArgumentParser(description="Print what an image lacks of a lock file.")
    parser.add_argument("--wheels", type=Path, required=True, help="folder of our wheels")
    parser.add_argument("--locked", type=Path, required=True, help="output of `uv export`")
    parser.add_argument("--replace", action="append", default=[], metavar="NAME")
    options = parser.parse_args()
    refused = refused_here(options.wheels)
    locked = list(locked_in(options.locked.read_text("utf-8")))
    hopeless = set(refused) - {canonicalize_name(name) for name in options.replace}
    for name in sorted(hopeless):
        print(f"{refused[name]}: choose another VLLM_IMAGE", file=sys.stderr)
    if hopeless:
        return 1
    for requirement, lines in locked:
        name = canonicalize_name(requirement.name)
        if name in refused:
            print(f"replaced: {refused[name]}; now {requirement.specifier}", file=sys.stderr)
        if name in refused or installed(name) is None:
            print(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
