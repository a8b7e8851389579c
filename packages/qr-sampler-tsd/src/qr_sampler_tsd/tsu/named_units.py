# SPDX-License-Identifier: Apache-2.0
"""Sampling units by name, for the command ``qr-sampler tsd`` and for engines alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from qr_sampler import Registry, UnknownPluginError
from qr_sampler.errors import QRSamplerError
from qr_sampler.foreign import component_failure
from qr_sampler_tsd.errors import UnitError
from qr_sampler_tsd.tsu.adapter import TSUAdapter
from qr_sampler_tsd.tsu.guard import GuardedUnit
from qr_sampler_tsd.tsu.pbit_gibbs import PBitGibbsTSU
from qr_sampler_tsd.tsu.pbit_tree import PBitTreeTSU
from qr_sampler_tsd.tsu.simulated import SimTSU
from qr_sampler_tsd.tsu.thrml_tree import ThrmlTreeTSU
from qr_sampler_tsd.tsu.thrml_unit import ThrmlTSU

__all__ = ["DEFAULT_SWEEPS", "UNITS", "UNIT_NAMES", "named_unit"]

DEFAULT_SWEEPS: Final = 32
"""Sweeps of the unit ``gibbs``: enough for a head of 64 tokens with a Dirichlet target, which takes
27 to 29; a unit whose sweeps do not mix a payload refuses it."""

_Parse: TypeAlias = Callable[[str], Any]


class _Kind(NamedTuple):
    """A unit and its options."""

    make: Callable[..., TSUAdapter]
    """Takes the options by name."""
    options: Mapping[str, _Parse] = MappingProxyType({})
    """By the name of an option, how its value is read."""


def _gibbs(sweeps: int = DEFAULT_SWEEPS, tv_target: float = 1e-3) -> TSUAdapter:
    return PBitGibbsTSU(sweeps, tv_target)


_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "simulated": _Kind(SimTSU),
        "thrml": _Kind(ThrmlTSU),
        "thrml_tree": _Kind(ThrmlTreeTSU),
        "pbit_tree": _Kind(PBitTreeTSU, MappingProxyType({"dac_bits": int})),
        "gibbs": _Kind(_gibbs, MappingProxyType({"sweeps": int, "tv_target": float})),
    }
)

_SHORT: Final = MappingProxyType({"sim": "simulated", "tree": "pbit_tree"})

UNIT_NAMES: Final = (*_KINDS, *_SHORT)
"""The names of our own units, long and short."""

# mypy's type-abstract check forbids naming an abstract class where type[T] is expected, although
# only issubclass() is ever asked of it.
UNITS: Final[Registry[TSUAdapter]] = Registry(
    "sampling unit",
    "qr_sampler_tsd.units",
    TSUAdapter,  # type: ignore[type-abstract]
)
"""Units of other projects, classes that are constructed without arguments; they come guarded."""


def named_unit(spec: str) -> TSUAdapter:
    """Returns a sampling unit.

    Args:
        spec: One of :data:`UNIT_NAMES`, with options after a colon, or the name of an entry point
            of the group ``qr_sampler_tsd.units``.

    Raises:
        UnitError: When there is no such unit or option, or the value of an option is out of range.
        MissingExtraError: When the unit needs an extra that is not installed.
        PluginError: When a unit of another project is contested or cannot be imported.
        ComponentError: When it cannot be constructed.

    Examples:
        >>> named_unit("pbit_tree:dac_bits=12").name
        'PBitTreeTSU(dac_bits=12)'
        >>> named_unit("gibbs:sweeps=40,tv_target=0.01").name
        'PBitGibbsTSU(sweeps=40, tv_target=0.01)'
    """
    name, colon, listed = spec.partition(":")
    kind = _KINDS.get(_SHORT.get(name, name))
    if kind is None:
        if colon:
            raise UnitError(f"unit={spec!r}: {name!r} takes no options here; leave them out")
        return _foreign(name)
    options = _options(spec, listed, kind) if colon else {}
    try:
        return kind.make(**options)
    except ValueError as error:
        raise UnitError(f"unit={spec!r}: {error}") from error


def _options(spec: str, listed: str, kind: _Kind) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for option in listed.split(","):
        name, _, value = option.partition("=")
        parse = kind.options.get(name)
        if parse is None or name in options:
            known = ", ".join(kind.options) or "none"
            raise UnitError(
                f"unit={spec!r}: {option!r} is no option; give each as NAME=VALUE at most once, "
                f"there are: {known}"
            )
        try:
            options[name] = parse(value)
        except ValueError as error:
            raise UnitError(f"unit={spec!r}: {name}={value!r} is not a number") from error
    return options


def _foreign(name: str) -> TSUAdapter:
    try:
        made = UNITS.load(name)
    except UnknownPluginError as error:
        names = ", ".join((*UNIT_NAMES, *UNITS.names()))
        raise UnitError(f"unit={name!r} is unknown; there are: {names}") from error
    try:
        unit = made()
    except QRSamplerError:
        raise
    # Whatever a constructor of another project raises, the user is told which it was.
    except BaseException as error:
        raise component_failure("sampling unit", name, error) from error
    return GuardedUnit(unit, name)
