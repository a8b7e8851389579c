# SPDX-License-Identifier: Apache-2.0
"""Every name in a new package, made from the one that its author has chosen."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.metadata import distributions, packages_distributions
from typing import Final

from qr_sampler.errors import ConfigError, shown
from qr_sampler.settings_reference import setting_rows
from qr_sampler_cli.scaffolding.kinds import Kind
from qr_sampler_cli.settings.catalogue import installed_groups

__all__ = ["PackageNames", "package_names"]

MAX_CHARACTERS: Final = 20
"""Longest name; everything that is made of it fits on a line."""

NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)
"""An entry point, a part of a module's name, and as a distribution unlike all others."""

DISTRIBUTION: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
"""The normal form of PEP 503, beginning with a letter: a module bears the same name."""

MAX_PACKAGE_CHARACTERS: Final = 40
"""Longest name of a package, which is in lines of the code as well."""

CLASSES_TAKEN: Final = frozenset({"environment"})
"""Names of which a class would be made that the templates import."""

OURS: Final = frozenset({"qr-entropy-cryptalabs", "qr-entropy-http", "qr-entropy-serial"})
"""Distributions of this project that may be absent here and do not begin as all others do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageNames:
    """What a package and its parts are called."""

    name: str
    """What users configure, or the name of the server, such as ``my_dice``."""
    title: str
    """The beginning of classes, such as ``MyDice``."""
    distribution: str
    """Such as ``qr-entropy-my-dice``."""
    module: str
    """Such as ``qr_entropy_my_dice``."""
    prefix: str
    """The beginning of environment variables, such as ``QR_MY_DICE_``."""


def package_names(kind: Kind, name: str, distribution: str | None = None) -> PackageNames:
    """Returns the names of a package of *kind* that offers *name*.

    Args:
        kind: What it offers.
        name: What users configure.
        distribution: The name of the package, if it is not to be made of *name*.

    Raises:
        ConfigError: When a name is malformed, or belongs to somebody else.
    """
    _check_name(kind, name)
    dashed = name.replace("_", "-")
    package = f"{kind.prefix}-{dashed}" if distribution is None else distribution
    _check_distribution(package)
    prefix = kind.variables.format(name.upper())
    _check_prefix(name, prefix)
    return PackageNames(
        name=name,
        title="".join(part.capitalize() for part in name.split("_")),
        distribution=package,
        module=package.replace("-", "_"),
        prefix=prefix,
    )


def _check_name(kind: Kind, name: str) -> None:
    """Refuses a name that no configuration could use.

    Raises:
        ConfigError: Saying what is wrong with it.
    """
    if len(name) > MAX_CHARACTERS or not NAME.fullmatch(name):
        raise ConfigError(
            f"{shown(name)} cannot name a {kind.key}: use at most {MAX_CHARACTERS} lower-case "
            "letters and digits, a letter first, with single underscores between them, such as dice"
        )
    if keyword.iskeyword(name):
        raise ConfigError(f"{name} is a keyword of Python; choose another name")
    if name in kind.reserved:
        raise ConfigError(f"{name} is a failure policy (QR_FALLBACK_MODE); choose another name")
    if kind.registry is None:
        return
    if name.startswith("test"):
        raise ConfigError(
            f"pytest would take the classes of {name}, which begin with Test, for tests; choose "
            "another name"
        )
    if name in CLASSES_TAKEN:
        raise ConfigError(f"{name} is in the name of a class of qr-sampler; choose another name")
    for plugin in kind.registry.plugins():
        if plugin.name == name:
            raise ConfigError(
                f"{plugin.distribution} already offers the {kind.words} {name}; of two packages "
                "with one name neither is used, so choose another"
            )


def _check_distribution(distribution: str) -> None:
    """Refuses a distribution whose name, or whose module's name, is taken.

    Raises:
        ConfigError: Saying by whom.
    """
    if len(distribution) > MAX_PACKAGE_CHARACTERS or not DISTRIBUTION.fullmatch(distribution):
        raise ConfigError(
            f"{shown(distribution)} cannot name a package: use at most {MAX_PACKAGE_CHARACTERS} "
            "lower-case letters and digits, a letter first, with single dashes between them"
        )
    if distribution.startswith("qr-sampler") or distribution in OURS:
        raise ConfigError(f"{distribution} is a name of qr-sampler itself; choose another")
    module = distribution.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise ConfigError(f"{module} is a module of Python itself; choose another name")
    installed = {re.sub(r"[-_.]+", "-", one.name).lower() for one in distributions() if one.name}
    if distribution in installed:
        raise ConfigError(f"the package {distribution} is installed already; choose another name")
    owners = packages_distributions().get(module)
    if owners:
        raise ConfigError(f"the module {module} belongs to {owners[0]}; choose another name")


def _check_prefix(name: str, prefix: str) -> None:
    """Refuses a name whose settings would share variables with settings that there are.

    Raises:
        ConfigError: Naming one of those variables.
    """
    rows = (row for group in installed_groups() for row in setting_rows(group.model))
    for variable in sorted(row.variable.strip("`") for row in rows):
        if variable.startswith(prefix):
            raise ConfigError(
                f"the settings of {name} would begin with {prefix}, as {variable} does, which "
                "configures something else; choose another name"
            )
