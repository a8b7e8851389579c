# SPDX-License-Identifier: Apache-2.0
"""What a study is run with on this machine: settings, code, versions and the model's files."""

from __future__ import annotations

import platform
from importlib.metadata import entry_points
from pathlib import Path, PurePath
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from qr_sampler.admission.overrides import resolve_request
from qr_sampler.components.sources import ENTROPY_SOURCES
from qr_sampler.errors import ConfigError
from qr_sampler.records.code_digest import code_digest
from qr_sampler.records.genesis import installed_versions
from qr_sampler.records.model_manifest import manifest_of
from qr_sampler.settings import Settings, describe_validation_error
from qr_sampler_cli.settings.catalogue import installed_groups
from qr_sampler_lab.experiments.files.errors import StudyError
from qr_sampler_lab.experiments.protocol import Arm, ModelChoice, Protocol
from qr_sampler_lab.experiments.seal import SealedModel

__all__ = [
    "OUR_DISTRIBUTIONS",
    "check_arm",
    "engine_environment",
    "engine_settings",
    "files_in",
    "installed_code",
    "known_settings",
    "sealed_model",
    "versions_in_use",
]

OUR_DISTRIBUTIONS: Final = (
    "qr-entropy-cryptalabs",
    "qr-entropy-http",
    "qr-entropy-serial",
    "qr-entropy-sources",
    "qr-sampler",
    "qr-sampler-accel",
    "qr-sampler-core",
    "qr-sampler-grpc",
    "qr-sampler-lab",
    "qr-sampler-local",
    "qr-sampler-tsd",
    "qr-sampler-vllm",
)
"""The distributions of this project; code of those that are installed is sealed."""

_SOURCES_GROUP: Final = "qr_sampler.entropy_sources"

_CALCULATES: Final = ("numpy", "scipy", "torch", "vllm", "transformers")
"""What others calculate with, beside our own distributions."""


class _StatedSettings(Settings):
    """Settings that nothing but their arguments decides."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns where values come from; called by pydantic."""
        return (init_settings,)


def engine_environment(protocol: Protocol, study: Path) -> dict[str, str]:
    """Returns the ``QR_*`` variables that the engine of a study is started with.

    Its ledger, its seal and secrets of sources are added by whoever starts it; all other ``QR_*``
    variables have to be unset.

    Args:
        protocol: The protocol.
        study: Directory that relative paths are below.
    """
    files = {name: str(study.resolve() / file) for name, file in files_in(protocol).items()}
    sources = list(dict.fromkeys(arm.source for arm in protocol.arms))
    first = protocol.arms[0]
    return {
        "QR_ENTROPY_SOURCE_TYPE": first.source,
        "QR_SAMPLE_COUNT": str(first.block_bytes),
        "QR_SIGNAL_AMPLIFIER_TYPE": first.amplifier,
        "QR_REQUEST_ENTROPY_SOURCES": ",".join(sources[1:]),
        **{name: _as_text(value) for name, value in protocol.environment.items()},
        **files,
    }


def files_in(protocol: Protocol) -> dict[str, str]:
    """Returns the relative paths in the environment of a protocol, by variable.

    They are files below the study, and sealed. Absolute paths are devices and sockets of the
    machine.
    """
    paths = {name for name, field in known_settings().items() if "Path" in str(field.annotation)}
    return {
        name: str(value)
        for name, value in protocol.environment.items()
        if name in paths and not PurePath(str(value)).is_absolute()
    }


def known_settings() -> dict[str, FieldInfo]:
    """Returns the fields of all settings that installed packages of ours have, by variable."""
    return {
        f"{group.model.model_config.get('env_prefix', '')}{field}".upper(): info
        for group in installed_groups()
        for field, info in group.model.model_fields.items()
    }


def engine_settings(protocol: Protocol, study: Path) -> Settings:
    """Returns the settings that the engine of a study will have, whatever the environment here.

    Args:
        protocol: The protocol.
        study: Directory that relative paths are below.

    Raises:
        ConfigError: When a variable is malformed or out of range.
    """
    names = {f"QR_{field.upper()}": field for field in Settings.model_fields}
    values: dict[str, Any] = {
        names[name]: value
        for name, value in engine_environment(protocol, study).items()
        if name in names and value
    }
    try:
        return _StatedSettings(**values)
    except ValidationError as error:
        raise ConfigError(describe_validation_error(error, Settings, prefix="QR_")) from error


def check_arm(arm: Arm, settings: Settings) -> None:
    """Checks the requests of an arm exactly as the engine will.

    Raises:
        ConfigError: Naming the arm, the key, its value and the remedy.
    """
    try:
        ENTROPY_SOURCES.find(arm.source)
        resolve_request(settings, arm.request_options)
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name!r}: {error}") from error


def installed_code(protocol: Protocol) -> dict[str, str]:
    """Returns the digests of our distributions, and of those that bring the sources of the arms."""
    names = {*OUR_DISTRIBUTIONS, *_of_sources(protocol)}
    digests = {name: code_digest(name) for name in sorted(names)}
    return {name: digest for name, digest in digests.items() if digest}


def versions_in_use(protocol: Protocol) -> dict[str, str]:
    """Returns the versions of these, of what they calculate with, and of Python."""
    names = sorted({*OUR_DISTRIBUTIONS, *_of_sources(protocol), *_CALCULATES})
    return {**installed_versions(names), "python": platform.python_version()}


def sealed_model(study: Path, choice: ModelChoice) -> SealedModel:
    """Returns the model of a study, with the digests of its files.

    Args:
        study: Directory of the study.
        choice: What its protocol says.

    Raises:
        ConfigError: When they cannot be read.
        StudyError: When it is no directory, or has another manifest than the protocol says.
    """
    path = study / Path(choice.path).expanduser()
    if not path.is_dir():
        raise StudyError(
            f"the model {choice.path} is no directory here; download it, so that its files can be "
            "sealed, and name the directory"
        )
    manifest = manifest_of(path)
    if choice.manifest_sha256 not in (None, manifest.sha256):
        raise StudyError(
            f"the manifest of the model {path} has the digest {manifest.sha256}, and the protocol "
            f"says {choice.manifest_sha256}"
        )
    return SealedModel(
        name=choice.public_name, manifest_sha256=manifest.sha256, files=dict(manifest.files)
    )


def _of_sources(protocol: Protocol) -> set[str]:
    sources = {arm.source for arm in protocol.arms}
    return {
        entry.dist.name
        for entry in entry_points(group=_SOURCES_GROUP)
        if entry.name in sources and entry.dist is not None
    }


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
