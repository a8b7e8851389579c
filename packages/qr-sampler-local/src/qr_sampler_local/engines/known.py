# SPDX-License-Identifier: Apache-2.0
"""The engines that there are adapters for, which of them are installed, and how to load one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, Final, cast

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler.settings import Settings
from qr_sampler_local.engines.protocol import LocalEngine

__all__ = [
    "KNOWN_ENGINES",
    "EngineMissingError",
    "KnownEngine",
    "installed_engines",
    "known_engine",
    "load_engine",
]


class EngineMissingError(QRSamplerError, ImportError):
    """An engine is not installed, or does not import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEngine:
    """An engine with an adapter."""

    name: str
    """Its name as users type it, which is that of the extra, too."""
    title: str
    """Its own name."""
    distribution: str
    """The distribution whose version counts."""
    modules: tuple[str, ...]
    """What has to be importable."""
    adapter: str
    """The class of its adapter, as ``module:Class``."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The modules that are not there; none of them is imported to see that."""
        return tuple(name for name in self.modules if not _is_there(name))

    @property
    def version(self) -> str:
        """The installed version, empty if there is none."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return ""

    @property
    def remedy(self) -> str:
        """How to install it.

        The packages of this project are on no package index, so this names folders of a clone, also
        that of the selectors which every extra asks for.
        """
        extra = f"./packages/qr-sampler-accel './packages/qr-sampler-local[{self.name}]'"
        return f"in a clone of the project: pip install {extra}"

    def load(
        self, model: str, settings: Settings | None, arguments: Mapping[str, Any]
    ) -> LocalEngine:
        """Returns the engine with *model* loaded; see :func:`load_engine`."""
        if self.missing:
            raise EngineMissingError(
                f"{self.title} needs {' and '.join(self.missing)}, which is not installed; "
                f"install it {self.remedy}"
            )
        module, _, name = self.adapter.partition(":")
        try:
            adapter = getattr(import_module(module), name)
        # A compiled package can fail in any way while it loads; the reason is passed on.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise EngineMissingError(
                f"{self.title} {self.version} is installed but does not import ({reason}); "
                f"install it again {self.remedy}"
            ) from error
        return cast("LocalEngine", adapter(model, settings=settings, arguments=arguments))


KNOWN_ENGINES: Final = (
    KnownEngine(
        name="transformers",
        title="Transformers",
        distribution="transformers",
        modules=("torch", "transformers"),
        adapter="qr_sampler_local.transformers.engine:TransformersEngine",
    ),
    KnownEngine(
        name="mlx",
        title="MLX-LM",
        distribution="mlx-lm",
        modules=("mlx.core", "mlx_lm"),
        adapter="qr_sampler_local.mlx.engine:MLXEngine",
    ),
    KnownEngine(
        name="llama-cpp",
        title="llama-cpp-python",
        distribution="llama-cpp-python",
        modules=("llama_cpp",),
        adapter="qr_sampler_local.llama_cpp.engine:LlamaCppEngine",
    ),
)
"""All of them."""


def known_engine(name: str) -> KnownEngine:
    """Returns the engine called *name*.

    Raises:
        ConfigError: When there is none.
    """
    for engine in KNOWN_ENGINES:
        if engine.name == name:
            return engine
    names = ", ".join(engine.name for engine in KNOWN_ENGINES)
    raise ConfigError(f"there is no engine {name!r}; choose one of {names}")


def installed_engines() -> tuple[KnownEngine, ...]:
    """Returns the engines that are installed here. Nothing is imported."""
    return tuple(engine for engine in KNOWN_ENGINES if not engine.missing)


def load_engine(
    name: str,
    model: str,
    settings: Settings | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
) -> LocalEngine:
    """Returns an engine with its model loaded. Close it when it is not needed any more.

    Args:
        name: ``"transformers"``, ``"mlx"`` or ``"llama-cpp"``.
        model: Directory of the model or its name on the model hub; for llama.cpp a ``.gguf`` file.
        settings: The deployment's settings; those of the environment if not given.
        arguments: The engine's own arguments, by name.

    Raises:
        ConfigError: When there is no such engine, or a setting or an argument is refused.
        EngineMissingError: When it is not installed, or does not import.
    """
    return known_engine(name).load(model, settings, arguments or {})


def _is_there(module: str) -> bool:
    """Whether a module could be imported; a folder that happens to have its name is none."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None
