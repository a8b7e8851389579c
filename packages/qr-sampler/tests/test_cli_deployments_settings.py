# SPDX-License-Identifier: Apache-2.0
"""The variables of every profile, compared with the settings of the code."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

import qr_entropy_sources
import qr_sampler
from qr_sampler import Settings
from qr_sampler.settings import public_name

pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")
import qr_sampler_grpc
from qr_sampler.entropy.breaker_settings import BreakerSettings
from qr_sampler.settings.source_declarations import SourceDeclarations
from qr_sampler_grpc.direct.settings import DirectSettings
from qr_sampler_grpc.protocol.profiles import PROFILES
from qr_sampler_grpc.settings import GrpcSettings

RELEVANT: dict[str, tuple[type[BaseSettings], ...]] = {
    "quantum_grpc": (Settings, SourceDeclarations, GrpcSettings, BreakerSettings),
    "direct": (Settings, SourceDeclarations, DirectSettings, BreakerSettings),
}
"""What the container with vLLM reads, by the source that it draws from."""

ELSEWHERE = {
    "DeviceFileSettings",
    "DirectSettings",
    "JitterEntropySettings",
    "MockUniformSettings",
    "PrngSettings",
    "ShamSettings",
    "TimingNoiseSettings",
}
"""Settings of sources that no profile draws from."""

SHARED_SOCKET = {
    "QR_ENTROPY_SOURCE_TYPE": "quantum_grpc",
    "QR_GRPC_MODE": "bidi_streaming",
    "QR_GRPC_SERVER_ADDRESS": "unix:///run/qr-sampler/entropy.sock",
    "QR_LEDGER_DIR": "/var/lib/qr-sampler/records",
}
OWN_SERVER = {**SHARED_SOCKET, "QR_GRPC_MAX_BYTES_PER_REQUEST": str(2**20)}
FIREFLY = PROFILES["qrng"]
CHOSEN = {
    "_template": OWN_SERVER,
    "local": OWN_SERVER,
    "timing": {
        **SHARED_SOCKET,
        "QR_CB_MIN_TIMEOUT_MS": "1000",
        "QR_GRPC_MAX_BYTES_PER_REQUEST": str(2**16),
    },
    "urandom": OWN_SERVER,
    "firefly-1": {
        "QR_ENTROPY_SOURCE_TYPE": "quantum_grpc",
        "QR_FALLBACK_MODE": "end_request",
        "QR_GRPC_MAX_BYTES_PER_DAY": str(FIREFLY.max_bytes_per_day),
        "QR_GRPC_MAX_BYTES_PER_REQUEST": str(FIREFLY.max_bytes_per_request),
        "QR_GRPC_MAX_REQUESTS_PER_MINUTE": str(FIREFLY.max_requests_per_minute),
        "QR_GRPC_PROFILE": "qrng",
        "QR_GRPC_SERVER_ADDRESS": "10.0.0.115:50051",
        "QR_LEDGER_DIR": "/var/lib/qr-sampler/records",
    },
}
"""Where a profile departs from the code's defaults; everything else must not."""

LEFT_TO_THE_UNIT = {"QR_GRPC_API_KEY_FILE"}
"""What the file of `local` must not set, because the unit does."""


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # The contract tests need pytest's own rewriting, the stubs of gRPC hold no settings.
        if ".testing" not in found.name and ".proto" not in found.name:
            yield importlib.import_module(found.name)


def settings_classes() -> set[type[BaseSettings]]:
    """Returns the classes that read `QR_*` variables, of the packages that a profile installs."""
    return {
        value
        for package in (qr_sampler, qr_entropy_sources, qr_sampler_grpc)
        for module in modules(package)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BaseSettings)
        and str(value.model_config.get("env_prefix", "")).startswith("QR_")
    }


def code_defaults(source: str) -> dict[str, str]:
    """Returns the variables that matter to a source with their defaults, as a file writes them."""
    found = {}
    for model in RELEVANT[source]:
        for name, field in model.model_fields.items():
            value = field.default
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            text = str(value).lower() if isinstance(value, bool) else str(value)
            variable = public_name(name, str(model.model_config["env_prefix"]))
            found[variable] = "" if value is None else text
    return found


def meanings(source: str) -> dict[str, str]:
    return {
        public_name(name, str(model.model_config["env_prefix"])): str(field.description)
        for model in RELEVANT[source]
        for name, field in model.model_fields.items()
    }


def of_the_plugin(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith("QR_")}


def test_settings_that_no_profile_has_are_known() -> None:
    covered = {model for models in RELEVANT.values() for model in models}
    assert {model.__name__ for model in settings_classes() - covered} <= ELSEWHERE
    assert covered <= settings_classes()


def test_a_compose_file_has_every_setting_with_its_default(profile: Any) -> None:
    variables = of_the_plugin(profile.environment())
    source = variables["QR_ENTROPY_SOURCE_TYPE"]
    assert variables == {**code_defaults(source), **CHOSEN[profile.name]}
    # Nothing is written out: each can be set from outside.
    assert set(variables) <= set(profile.defaults)


def test_an_example_file_has_every_setting_with_its_meaning(
    environment_files: dict[str, Any],
) -> None:
    with_settings = {
        path: files for path, files in environment_files.items() if of_the_plugin(files[0])
    }
    assert {path.partition("/")[0] for path in with_settings} == set(CHOSEN)
    for path, (values, texts) in with_settings.items():
        name = path.partition("/")[0]
        variables = of_the_plugin(values)
        source = variables["QR_ENTROPY_SOURCE_TYPE"]
        expected = {**code_defaults(source), **CHOSEN[name]}
        absent = LEFT_TO_THE_UNIT if name == "local" else set()
        assert variables == {key: expected[key] for key in expected if key not in absent}
        for variable, meaning in meanings(source).items():
            assert texts[variable].startswith(meaning), f"{path}: {variable} means: {meaning}"


def test_variables_are_accepted_by_the_code(
    profile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = of_the_plugin(profile.environment())
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for model in RELEVANT[variables["QR_ENTROPY_SOURCE_TYPE"]]:
        model.load()  # type: ignore[attr-defined]


def test_firefly_is_asked_within_its_limits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment_files: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    values, _ = environment_files["firefly-1/.env.example"]
    for name, value in of_the_plugin(values).items():
        monkeypatch.setenv(name, value)
    contract = GrpcSettings.load().contract
    limits = (
        contract.limits.max_bytes_per_request,
        contract.limits.max_requests_per_minute,
        contract.limits.max_bytes_per_day,
    )
    assert limits == (13_312, 500, 500_000_000)


def test_a_full_step_is_one_request(environment_files: dict[str, Any]) -> None:
    for path, (values, _) in environment_files.items():
        if variables := of_the_plugin(values):
            step = int(values["VLLM_MAX_NUM_SEQS"]) * int(variables["QR_SAMPLE_COUNT"])
            assert step <= int(variables["QR_GRPC_MAX_BYTES_PER_REQUEST"]), path


def test_files_with_secrets_are_named_where_they_are_mounted(deployments: Path) -> None:
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load((deployments / "firefly-1" / "docker-compose.yml").read_text("utf-8"))
    vllm = document["services"]["vllm"]
    targets = {one["target"] for kind in ("secrets", "configs") for one in vllm[kind]}
    example = (deployments / "firefly-1" / ".env.example").read_text("utf-8")
    assert targets == {
        "/run/secrets/api-key",
        "/run/secrets/tls-client-key",
        "/run/configs/tls-ca.pem",
        "/run/configs/tls-client.pem",
    }
    for target in targets:
        assert target in example, f"{target} is not explained"
