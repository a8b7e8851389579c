# SPDX-License-Identifier: Apache-2.0
"""The compose files: their schema, their variables, and what they promise of containers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

LOOPBACK = "127.0.0.1:"
OURS = ("entropy-server", "vllm")


def has_compose() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0


def ours(document: Any) -> dict[str, Any]:
    """Returns the services that are built from our images."""
    return {name: service for name, service in document["services"].items() if name in OURS}


def volumes(service: Any) -> list[list[str]]:
    return [entry.split(":") for entry in service.get("volumes", ())]


def test_every_folder_with_a_compose_file_is_examined(deployments: Path) -> None:
    found = {path.parent.name for path in deployments.rglob("*compose*.y*ml")}
    assert found == {"_template", "firefly-1", "timing", "urandom"}


def test_a_compose_file_follows_the_specification(profile: Any, tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="it brings the schema of the specification")
    yaml = pytest.importorskip("yaml")
    resolved = tmp_path / "resolved.yml"
    resolved.write_text(yaml.safe_dump(profile.compose()), "utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    files = [str(profile.compose_file), str(resolved)]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_finds_a_mistake(profile: Any, tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="it brings the schema of the specification")
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(profile.text.replace("read_only: true", "read_only_root: true"), "utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(wrong)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "read_only_root" in done.stdout


def test_every_variable_has_one_default(profile: Any) -> None:
    assert len(profile.uses) == profile.text.count("$"), "another form of interpolation"
    assert len(set(profile.uses)) == len(profile.defaults), "two defaults of one variable"


def test_without_env_and_with_the_example_mean_the_same(profile: Any) -> None:
    from dotenv import dotenv_values
    from dotenv.variables import parse_variables

    example = dotenv_values(profile.folder / ".env.example")
    assert profile.compose(example) == profile.compose()
    # The same by another hand: python-dotenv knows the form, but keeps empty variables.
    for variables in ({}, {name: value for name, value in example.items() if value}):

        def by_dotenv(text: str, known: Mapping[str, str] = variables) -> str:
            return "".join(atom.resolve(known) for atom in parse_variables(text))

        assert profile.compose(substitute=by_dotenv) == profile.compose(variables)


@pytest.mark.slow
def test_every_variable_is_explained_and_arrives(
    profile: Any, environment_files: dict[str, Any]
) -> None:
    values, texts = environment_files[f"{profile.name}/.env.example"]
    assert values == profile.defaults
    assert list(texts) == list(values)
    assert [name for name, text in texts.items() if len(text) < 10] == []
    for name in values:
        assert profile.compose({name: "4711"}) != profile.compose(), f"{name} changes nothing"


def test_docker_compose_reads_the_same(profile: Any, tmp_path: Path) -> None:
    if not has_compose():
        pytest.skip("docker compose is not installed")
    empty = tmp_path / "empty.env"
    empty.touch()
    for env_file, variables in ((empty, {}), (profile.folder / ".env.example", {})):
        command = ["docker", "compose", "--file", str(profile.compose_file)]
        command += ["--env-file", str(env_file), "--profile", "ui", "config", "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        services = json.loads(done.stdout)["services"]
        expected = profile.compose(variables)["services"]
        assert set(services) == set(expected)
        read = {name: value or "" for name, value in services["vllm"]["environment"].items()}
        assert read == profile.environment(variables)
        assert services["vllm"]["command"] == expected["vllm"]["command"]


def test_containers_are_locked_down(profile: Any) -> None:
    document = profile.compose()
    for name, service in document["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        for forbidden in ("privileged", "cap_add", "ipc", "pid", "userns_mode", "user"):
            assert forbidden not in service, f"{name} has {forbidden}"
        assert all(port.startswith(LOOPBACK) for port in service.get("ports", ())), name
    for name, service in ours(document).items():
        assert service["read_only"] is True, name
        assert service["tmpfs"], name
        assert service["init"] is True, name
        assert service["healthcheck"]["test"][0] == "CMD", name
    if "entropy-server" in document["services"]:
        server = document["services"]["entropy-server"]
        assert server["network_mode"] == "none"
        assert "ports" not in server


def test_services_wait_for_what_they_need(profile: Any) -> None:
    services = profile.compose()["services"]
    wanted = {"open-webui": "vllm"}
    if "entropy-server" in services:
        wanted["vllm"] = "entropy-server"
    for name, needed in wanted.items():
        assert services[name]["depends_on"] == {needed: {"condition": "service_healthy"}}
    assert services["open-webui"]["profiles"] == ["ui"]
    assert all("profiles" not in service for service in ours(profile.compose()).values())


def test_images_are_pinned(profile: Any) -> None:
    services = profile.compose()["services"]
    for name, service in services.items():
        if name in OURS:
            # Built here when there is no such image, and again only when that is asked for: an
            # instrument does not change with the next start, nor come from a registry.
            assert "build" in service
            assert not {"image", "pull_policy"} & set(service)
        else:
            tag = service["image"].rpartition(":")[2]
            assert tag[:1] == "v", service["image"]
            assert tag[1:].replace(".", "").isdigit(), service["image"]


def test_copies_of_the_template_have_nothing_in_common(profile: Any) -> None:
    # Without a name of its own, a project has that of its folder, and so have images and volumes.
    document = profile.compose()
    assert ("name" in document) == (profile.name != "_template")
    assert document["volumes"] == dict.fromkeys(document["volumes"])


def test_secrets_and_further_options_reach_vllm(profile: Any) -> None:
    given = {"HF_TOKEN": "hf_x", "VLLM_API_KEY": "k", "VLLM_ARGUMENTS": "--seed=1 --enforce-eager"}
    services = profile.compose(given)["services"]
    assert given.items() <= services["vllm"]["environment"].items()
    # The interface shows the same key.
    assert services["open-webui"]["environment"]["OPENAI_API_KEY"] == "k"
    more = {"VLLM_MAX_MODEL_LEN": "4096", "VLLM_TENSOR_PARALLEL_SIZE": "2"}
    command = profile.compose(more)["services"]["vllm"]["command"]
    assert {"--max-model-len=4096", "--tensor-parallel-size=2"} <= set(command)


def test_a_value_in_single_quotes_is_taken_as_it_is(profile: Any, tmp_path: Path) -> None:
    (assignment,) = re.findall(r"for example (VLLM_API_KEY='[^']*')", profile.example)
    assert "$" in assignment
    if not has_compose():
        pytest.skip("docker compose is not installed, and nothing else has its rules of quoting")
    file = tmp_path / ".env"
    file.write_text(f"{assignment}\nHF_TOKEN=left${{VLLM_API_KEY}}right\n", "utf-8")
    command = ["docker", "compose", "--file", str(profile.compose_file), "--env-file", str(file)]
    done = subprocess.run(
        [*command, "config", "--environment"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read = dict(line.split("=", 1) for line in done.stdout.splitlines())
    key = assignment.partition("=")[2].strip("'")
    assert (read["VLLM_API_KEY"], read["HF_TOKEN"]) == (key, f"left{key}right")


def test_the_browser_asks_for_nothing_that_vllm_refuses(profile: Any) -> None:
    """That these are enough is shown by a real interface in the session `openwebui`."""
    environment = profile.compose()["services"]["open-webui"]["environment"]
    assert json.loads(environment["DEFAULT_MODEL_PARAMS"]) == {"function_calling": "legacy"}
    capabilities = json.loads(environment["DEFAULT_MODEL_METADATA"])["capabilities"]
    assert capabilities == {"builtin_tools": False}
    switched_off = {name for name, value in environment.items() if value == "false"}
    assert {name for name in environment if name.endswith("_GENERATION")} <= switched_off


def test_mounts_lead_from_something_to_something(profile: Any) -> None:
    document = profile.compose()
    named = set(document["volumes"])
    used = set()
    for name, service in document["services"].items():
        for source, target, *mode in volumes(service):
            assert target.startswith("/"), (name, target)
            if source.startswith("."):
                assert (profile.folder / source).is_file(), f"{name}: no file {source}"
                assert mode == ["ro"], (name, source)
            else:
                used.add(source)
    assert used == named
    for kind in ("secrets", "configs"):
        declared = document.get(kind, {})
        referred = [
            one for service in document["services"].values() for one in service.get(kind, ())
        ]
        assert sorted(one["source"] for one in referred) == sorted(declared)
        assert {entry["file"] for entry in declared.values()} <= {"/dev/null"}


def test_socket_is_shared_by_both_sides(profile: Any) -> None:
    services = profile.compose()["services"]
    address = profile.environment()["QR_GRPC_SERVER_ADDRESS"]
    if "entropy-server" not in services:
        assert not address.startswith("unix:")
        return
    server = services["entropy-server"]
    assert f"--address={address}" in server["command"]
    assert server["healthcheck"]["test"][-1] == address
    folder = str(Path(address.removeprefix("unix://")).parent)
    mounted = {
        name: [entry for entry in volumes(services[name]) if entry[1] == folder]
        for name in ("entropy-server", "vllm")
    }
    assert mounted["entropy-server"] == [["entropy-socket", folder]]
    assert mounted["vllm"] == [["entropy-socket", folder, "ro"]]


def test_ports_and_addresses_belong_together(profile: Any) -> None:
    services = profile.compose()["services"]
    vllm = services["vllm"]
    assert "--port=8000" in vllm["command"]
    assert vllm["ports"] == [f"{LOOPBACK}8000:8000"]
    assert "http://127.0.0.1:8000/health" in vllm["healthcheck"]["test"][-1]
    assert services["open-webui"]["environment"]["OPENAI_API_BASE_URL"] == "http://vllm:8000/v1"
    changed = profile.compose({"API_ADDRESS": "::1", "API_PORT": "9"})["services"]
    assert changed["vllm"]["ports"] == ["::1:9:8000"]


def test_records_are_on_a_volume(profile: Any) -> None:
    ledger = profile.environment()["QR_LEDGER_DIR"]
    (target,) = (
        entry[1]
        for entry in volumes(profile.compose()["services"]["vllm"])
        if "records" in entry[0]
    )
    assert Path(target) in Path(ledger).parents


def test_without_a_gpu_three_variables_suffice(profile: Any) -> None:
    block = profile.example.split("Without a GPU")[1].split("\n\n")[0]
    lines = [line.removeprefix("#").strip() for line in block.splitlines()[1:]]
    variables = dict(line.split("=") for line in lines if "=" in line)
    assert list(variables) == ["VLLM_IMAGE", "CONTAINER_RUNTIME", "VLLM_DTYPE"]
    vllm = profile.compose(variables)["services"]["vllm"]
    assert vllm["runtime"] == "runc"
    assert vllm["build"]["args"]["VLLM_IMAGE"].startswith("vllm/vllm-openai-cpu:")
    assert "--dtype=bfloat16" in vllm["command"]
    readme = (profile.folder / "README.md").read_text("utf-8")
    assert "\n".join(f"{name}={value}" for name, value in variables.items()) in readme


def test_model_and_engine_options_are_the_documented_ones(profile: Any) -> None:
    command = profile.compose()["services"]["vllm"]["command"]
    assert command[:3] == ["vllm", "serve", "Qwen/Qwen2.5-1.5B-Instruct"]
    assert "--dtype=half" in command
    assert "--gpu-memory-utilization=0.90" in command
    changed = profile.compose({"VLLM_DTYPE": "float32", "VLLM_GPU_MEM": "0.5"})["services"]["vllm"]
    assert {"--dtype=float32", "--gpu-memory-utilization=0.5"} <= set(changed["command"])
