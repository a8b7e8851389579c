# SPDX-License-Identifier: Apache-2.0
"""Which engine a command uses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from qr_sampler_cli.engines import plugin
from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_cli.remedies import from_clone
from qr_sampler_local.engines import installed_engines, known_engine, preferred_engines

__all__ = ["VLLM", "EngineChoice", "EngineName", "choose_engine", "require_engine", "title_of"]

VLLM: Final = "vllm"


class EngineName(str, Enum):
    """The engines as users type them."""

    AUTO = "auto"
    VLLM = VLLM
    TRANSFORMERS = "transformers"
    MLX = "mlx"
    LLAMA_CPP = "llama-cpp"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine that a command uses."""

    name: str
    """Its name as users type it, never ``auto``."""
    reason: str = ""
    """Why it was chosen, empty if the user has named it."""

    @property
    def title(self) -> str:
        """Its name in texts."""
        return title_of(self.name)


def title_of(name: str) -> str:
    """Returns the name of an engine in texts."""
    return "vLLM" if name == VLLM else known_engine(name).title


def choose_engine(name: EngineName, model: str) -> EngineChoice:
    """Returns the engine to use, which is installed as far as can be told without importing it.

    ``auto`` is vLLM where it is installed with our plugin, unless the model is a ``.gguf`` file
    that llama.cpp is there for; else the first of
    :func:`~qr_sampler_local.engines.preferred_engines` that is installed.

    Args:
        name: What the user has asked for.
        model: Path or name of the model.

    Raises:
        MissingPackageError: When it is not installed, or nothing is that reads the model.
    """
    if name is not EngineName.AUTO:
        require_engine(name.value)
        return EngineChoice(name.value)
    preferred = preferred_engines(model)
    installed = [engine.name for engine in installed_engines()]
    suitable = [each for each in preferred if each in installed]
    absence = plugin.absence()
    if not absence and not (suitable and preferred == ("llama-cpp",)):
        return EngineChoice(VLLM, "installed with the plugin")
    if suitable:
        why = "which reads .gguf files" if suitable[0] == "llama-cpp" else f"because {absence}"
        return EngineChoice(suitable[0], why)
    raise MissingPackageError(_nothing(preferred, installed, absence))


def require_engine(name: str) -> None:
    """Checks that an engine is installed, as far as that is seen without importing it.

    Raises:
        MissingPackageError: When it is not.
    """
    if name == VLLM:
        plugin.require_plugin()
        return
    engine = known_engine(name)
    if engine.missing:
        raise MissingPackageError(
            f"--engine {name} needs {' and '.join(engine.missing)}, which is not installed; "
            f"install it {_install(name)}"
        )


def _nothing(preferred: tuple[str, ...], installed: list[str], absence: str) -> str:
    """Returns the message where no engine is installed that reads the model."""
    titles = " nor ".join(title_of(name) for name in preferred)
    there = ", ".join(title_of(name) for name in installed)
    aside = f" ({there} does not read it)" if there else ""
    smallest = f"install {title_of(preferred[0])} {_install(preferred[0])}"
    return (
        f"no engine for this model: {absence}, and neither is {titles}{aside}; {smallest}; "
        f"or {plugin.remedy()}"
    )


def _install(name: str) -> str:
    return from_clone(f"qr-sampler[{name}]")
