# SPDX-License-Identifier: Apache-2.0
"""The units of systemd: their syntax, their exposure, and their variables."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

UNITS = {"qr-entropy-server.service": 15, "qr-vllm.service": 20}
"""The highest exposure that `systemd-analyze security` may find, in tenths: 1.5 and 2.0 of 10."""

FILES = {"qr-entropy-server.service": "entropy-server.env", "qr-vllm.service": "vllm.env"}
SECRETS = "-/etc/qr-sampler/vllm-secrets.env"
READ_BY_VLLM = {"VLLM_PLUGINS", "VLLM_CPU_KVCACHE_SPACE"}
SET_BY_SYSTEMD = {"CREDENTIALS_DIRECTORY"}

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture(params=list(UNITS))
def unit(request: pytest.FixtureRequest, deployments: Path) -> Path:
    return deployments / "systemd" / request.param


def values(unit: Path, key: str) -> list[str]:
    """Returns what a unit assigns to *key*, assignment by assignment."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text("utf-8"), flags=re.MULTILINE)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_unit_is_examined(deployments: Path) -> None:
    assert {path.name for path in (deployments / "systemd").glob("*.service")} == set(UNITS)


@needs_systemd
def test_systemd_accepts_a_unit(unit: Path, tmp_path: Path) -> None:
    # It also looks for the programs, which are installed on the machine that they are for.
    text = re.sub(r"/opt/qr-sampler/venv/bin/\w+", "/bin/true", unit.read_text("utf-8"))
    installed = tmp_path / unit.name
    installed.write_text(text, "utf-8")
    # Others that this one names, with programs of the same kind.
    for name in set(UNITS) - {unit.name}:
        other = unit.with_name(name).read_text("utf-8")
        other = re.sub(r"/opt/qr-sampler/venv/bin/\w+", "/bin/true", other)
        (tmp_path / name).write_text(other, "utf-8")
    done = analyze("verify", "--man=no", str(installed))
    ours = [line for line in done.stderr.splitlines() if "qr-" in line]
    assert (done.returncode, ours) == (0, [])


@needs_systemd
def test_systemd_finds_a_mistake(unit: Path, tmp_path: Path) -> None:
    wrong = tmp_path / unit.name
    wrong.write_text(
        unit.read_text("utf-8").replace("ProtectHome=yes", "ProtectHouse=yes"), "utf-8"
    )
    assert "ProtectHouse" in analyze("verify", "--man=no", str(wrong)).stderr


@needs_systemd
def test_exposure_stays_low(unit: Path) -> None:
    if "--offline" not in analyze("--help").stdout:
        pytest.skip("this systemd-analyze cannot judge a unit that is not installed")
    done = analyze("security", "--offline=true", f"--threshold={UNITS[unit.name]}", str(unit))
    assert done.returncode == 0, done.stdout


def test_a_failed_service_is_started_again_and_logs_to_the_journal(unit: Path) -> None:
    assert values(unit, "Restart") == ["on-failure"]
    assert float(values(unit, "RestartSec")[0].removesuffix("s")) >= 1
    assert values(unit, "StandardOutput") == values(unit, "StandardError") == ["journal"]
    assert "PYTHONUNBUFFERED=1" in " ".join(values(unit, "Environment"))
    assert values(unit, "User") == ["qr-sampler"]


def test_secrets_are_credentials(unit: Path, environment_files: dict[str, Any]) -> None:
    assert values(unit, "LoadCredential") == ["api-key:/etc/qr-sampler/api-key"]
    text = unit.read_text("utf-8")
    assert text.count("${CREDENTIALS_DIRECTORY}/api-key") == 1
    # %d came with systemd 251; Ubuntu 22.04 has 249.
    assert "%d" not in text
    # An empty line in the file would take the place of what the unit says.
    variables, _ = environment_files["local/vllm.env.example"]
    assert "QR_GRPC_API_KEY_FILE" not in variables


def test_devices_can_be_opened_but_only_those_listed(unit: Path) -> None:
    assert values(unit, "DevicePolicy") == ["closed"]
    assert values(unit, "DeviceAllow")
    assert values(unit, "PrivateDevices") == []


def test_unit_and_its_file_agree_on_the_variables(
    unit: Path, environment_files: dict[str, Any]
) -> None:
    file = FILES[unit.name]
    assert set(values(unit, "EnvironmentFile")) - {SECRETS} == {f"/etc/qr-sampler/{file}"}
    variables, texts = environment_files[f"local/{file}.example"]
    commands = " ".join(values(unit, "ExecStart") + values(unit, "ExecStartPost"))
    used = set(re.findall(r"\$\{?([A-Z_]+)", commands)) - SET_BY_SYSTEMD
    own = {name for name in variables if not name.startswith("QR_")}
    assert used <= own
    assert own - used <= READ_BY_VLLM
    assert all(texts[name] for name in variables)


def test_both_units_meet_at_one_socket(
    deployments: Path, environment_files: dict[str, Any]
) -> None:
    server, _ = environment_files["local/entropy-server.env.example"]
    client, _ = environment_files["local/vllm.env.example"]
    assert client["QR_GRPC_SERVER_ADDRESS"] == server["ENTROPY_ADDRESS"]
    assert server["ENTROPY_CHECK"] == server["ENTROPY_ADDRESS"]
    folder = Path(server["ENTROPY_ADDRESS"].removeprefix("unix://")).parent
    unit = deployments / "systemd" / "qr-entropy-server.service"
    assert values(unit, "RuntimeDirectory") == [folder.name]
    assert folder.parent == Path("/run")
    assert values(unit, "RuntimeDirectoryMode") == ["0700"]
    other = deployments / "systemd" / "qr-vllm.service"
    assert "qr-entropy-server.service" in values(other, "After")[0].split()
    state = Path("/var/lib") / values(other, "StateDirectory")[0]
    assert state in Path(client["QR_LEDGER_DIR"]).parents


def test_vllm_is_started_as_in_the_containers(deployments: Path, profile: Any) -> None:
    (command,) = values(deployments / "systemd" / "qr-vllm.service", "ExecStart")
    *arguments, more = command.split()
    assert more == "$VLLM_ARGUMENTS"
    by_compose = profile.compose()["services"]["vllm"]["command"][1:]

    def names(words: list[str]) -> list[str]:
        return [word.partition("=")[0] for word in words if word.startswith("--")]

    assert names(arguments) == names(by_compose)
    assert "--host=127.0.0.1" in arguments
