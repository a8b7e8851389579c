# SPDX-License-Identifier: Apache-2.0
"""Packages as `qr-sampler new` makes them, built, installed and used, beside plugins gone wrong.

They are built outside the workspace and installed as wheels into an environment of their own, which
sees that of the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qr_sampler_cli.scaffolding.filling import make_package
from qr_sampler_cli.scaffolding.kinds import KINDS
from qr_sampler_cli.scaffolding.names import package_names

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds and installs the packages"),
]

OURS = {"source": "dice", "amplifier": "words", "strategy": "calm", "server": "dice"}
HAS_GRPC = find_spec("qr_sampler_grpc") is not None and find_spec("grpc_health") is not None

ROGUES = {
    "rogue-broken": ("qr_sampler.entropy_sources", {"broken": "Source"}, "raise RuntimeError('x')"),
    "rogue-exits": ("qr_sampler.entropy_sources", {"exits": "Source"}, "raise SystemExit(7)"),
    "twin-one": ("qr_sampler.entropy_sources", {"twin": "Source"}, "Source = object"),
    "twin-other": ("qr_sampler.entropy_sources", {"twin": "Source"}, "Source = object"),
    "rogue-lost": ("qr_sampler.entropy_sources", {"lost": "Source"}, "Source = object"),
    "rogue-hostile": (
        "qr_sampler.entropy_sources",
        {"hostile": "Source"},
        """
        import threading
        from qr_sampler import EntropySource

        class Source(EntropySource):
            name = "hostile"
            blocks = False  # It may say so; nobody believes it.

            def get_random_bytes(self, n):
                threading.Event().wait()
        """,
    ),
    "rogue-amplifier": (
        "qr_sampler.signal_amplifiers",
        {"two": "Two"},
        """
        import numpy as np
        from qr_sampler import AmplificationResult, SignalAmplifier

        class Two(SignalAmplifier):
            def amplify(self, blocks, counts=None):
                return AmplificationResult(np.full(len(blocks), 2.0), np.zeros(len(blocks)))
        """,
    ),
}
"""Group, entry points and code of packages that do others harm, if they can."""

RUN = """
    from qr_sampler import AMPLIFIERS
    from qr_sampler.host import EngineFacts, SamplingSession
    from qr_sampler.testing import ToyHost

    host = ToyHost(SamplingSession(EngineFacts(engine="toy", model="none")))
    host.add(4, request_key="quiet")
    host.add(4, request_key="ours", signal_amplifier_type="words", temperature_strategy="calm")
    if "two" in AMPLIFIERS.names():
        host.add(4, request_key="astray", signal_amplifier_type="two")
    for _ in range(6):
        host.step()
    host.close()
"""
"""A session with the sources that the environment names, and what it leaves in its ledger."""


def rogue_wheel(folder: Path, distribution: str) -> Path:
    """Returns a wheel, written by hand, of one of the ``ROGUES``."""
    group, points, code = ROGUES[distribution]
    module = distribution.replace("-", "_")
    info = f"{module}-6.6.6.dist-info"
    declared = "".join(f"{name} = {module}:{target}\n" for name, target in points.items())
    files = {
        f"{module}.py": textwrap.dedent(code),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 6.6.6\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[{group}]\n{declared}",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    wheel = folder / f"{module}-6.6.6-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


class Environment:
    """An environment that sees the packages of the tests, and has plugins of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = folder / "venv"
        self.python = self.place / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.place], check=True)
        (self.packages,) = self.place.glob("lib/python*/site-packages")
        # Installed editable, packages lie elsewhere, which files of that folder tell.
        beside = sysconfig.get_paths()["purelib"]
        line = f"import site; site.addsitedir({beside!r})\n"
        (self.packages / "beside.pth").write_text(line, "utf-8")

    def install(self, *wheels: Path) -> None:
        command = ["uv", "pip", "install", "--quiet", "--no-deps", f"--python={self.place}"]
        subprocess.run([*command, *wheels], check=True, timeout=600)

    def popen(self, *arguments: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
        left_out = ("QR_", "PYTHON", "COVERAGE", "COV_", "PYTEST")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        return subprocess.Popen(
            [self.python, *arguments],
            cwd=cwd,
            env={**kept, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
        process = self.popen(*arguments, cwd=cwd or self.folder, **variables)
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed
        return printed

    def ledger(self, folder: Path, **variables: str) -> list[dict[str, Any]]:
        """Returns the records of :data:`RUN` with the sources that *variables* name."""
        from qr_sampler.testing import records_in

        used = {"QR_LEDGER_DIR": str(folder), "QR_SAMPLE_COUNT": "1024", **variables}
        self.run("-c", textwrap.dedent(RUN), **used)
        (file,) = folder.glob("*.jsonl")
        return records_in(file)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A package of every kind whose tests can run here, by kind."""
    folder = tmp_path_factory.mktemp("made")
    places = {}
    for key, name in OURS.items():
        if key == "server" and not HAS_GRPC:
            continue
        names = package_names(KINDS[key], name)
        places[key] = folder / names.distribution
        make_package(KINDS[key], names, places[key], description="An example.", author="Nobody")
    return places


@pytest.fixture(scope="module")
def environment(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Has the wheels of all packages that were made."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    wheels = environment.folder / "wheels"
    building = [
        subprocess.Popen(["uv", "build", "--quiet", "--wheel", "--out-dir", wheels, place])
        for place in made.values()
    ]
    assert [process.wait(timeout=600) for process in building] == [0] * len(made)
    environment.install(*wheels.glob("*.whl"))
    return environment


@pytest.fixture(scope="module")
def crowded(environment: Environment) -> Environment:
    """The same environment when rogues have been installed, too."""
    environment.install(*(rogue_wheel(environment.folder, name) for name in ROGUES))
    (metadata,) = environment.packages.glob("rogue_lost-*/METADATA")
    metadata.unlink()
    return environment


def sources(environment: Environment, *arguments: str) -> dict[str, list[tuple[str, ...]]]:
    rows = json.loads(environment.run("-m", "qr_sampler_cli", "sources", "--json", *arguments))
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        told = (row["state"], row["distribution"], row["version"])
        found.setdefault(row["name"], []).append(told)
    return found


def test_their_own_tests_pass_before_the_first_edit(
    made: dict[str, Path], environment: Environment
) -> None:
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov")
    running = {key: environment.popen(*command, cwd=place) for key, place in made.items()}
    for key, process in running.items():
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed
        assert " passed" in printed, key


def test_the_source_is_found_healthy_and_named_in_the_records(
    environment: Environment, tmp_path: Path
) -> None:
    told = ("available", "qr-entropy-dice", "0.1.0")
    assert sources(environment, "dice", "--probe") == {"dice": [told]}
    health = ("-m", "qr_sampler_cli", "health", "run", "dice", "--draws", "8")
    assert environment.run(*health)
    stuck = environment.popen(*health, cwd=tmp_path, QR_DICE_PATH="/dev/zero")
    assert "repetition" in stuck.communicate(timeout=600)[0]
    assert stuck.returncode == 1
    used = {"QR_ENTROPY_SOURCE_TYPE": "dice", "QR_FALLBACK_MODE": "end_request"}
    origin = {"source_distribution": "qr-entropy-dice", "source_version": "0.1.0"}
    folder = tmp_path / "ledger"
    tokens = [one for one in environment.ledger(folder, **used) if one["kind"] == "token"]
    assert tokens
    for token in tokens:
        assert origin.items() <= token.items()
        assert (token["source"], token["fallback"]) == ("dice", False)
        assert token["health"] == "ok"


def test_a_device_that_is_stuck_decides_nothing(environment: Environment, tmp_path: Path) -> None:
    used = {
        "QR_ENTROPY_SOURCE_TYPE": "dice",
        "QR_FALLBACK_MODE": "end_request",
        "QR_DICE_PATH": "/dev/zero",
    }
    records = environment.ledger(tmp_path, **used)
    assert {one["kind"] for one in records} == {"genesis", "discard", "forced"}
    ended = [one["reason"] for one in records if one["kind"] == "forced"]
    assert ended
    assert all("health: repetition_count" in reason for reason in ended)


def test_rogues_are_named_and_harm_no_other_source(crowded: Environment) -> None:
    found = sources(crowded)
    assert found["dice"] == [("available", "qr-entropy-dice", "0.1.0")]
    assert found["system"][0][0] == "available"
    assert found["broken"] == [("broken", "rogue-broken", "6.6.6")]
    assert found["exits"] == [("broken", "rogue-exits", "6.6.6")]
    assert [told[:2] for told in found["twin"]] == [
        ("conflict", "twin-one"),
        ("conflict", "twin-other"),
    ]
    assert found["lost"][0][0] == "broken"


def test_rogues_harm_no_other_request(crowded: Environment, tmp_path: Path) -> None:
    used = {"QR_ENTROPY_SOURCE_TYPE": "dice", "QR_FALLBACK_MODE": "end_request"}
    records = crowded.ledger(tmp_path, **used)
    tokens = [one for one in records if one["kind"] == "token"]
    assert {one["request_key"] for one in tokens} == {"quiet", "ours"}
    assert {(one["source"], one["fallback"]) for one in tokens} == {("dice", False)}
    ours = [one for one in tokens if one["request_key"] == "ours"]
    assert {one["amplifier"] for one in ours} == {"words"}
    assert all(0.5 <= one["temperature"] <= 1.0 for one in ours)
    ended = [one for one in records if one["kind"] == "forced"]
    assert {one["request_key"] for one in ended} == {"astray"}
    assert "two" in ended[0]["reason"]


def test_a_source_that_never_answers_is_replaced_and_the_tokens_say_so(
    crowded: Environment, tmp_path: Path
) -> None:
    used = {
        "QR_ENTROPY_SOURCE_TYPE": "hostile",
        "QR_FALLBACK_MODE": "dice",
        "QR_DRAW_TIMEOUT_MS": "50",
    }
    tokens = [one for one in crowded.ledger(tmp_path, **used) if one["kind"] == "token"]
    assert {(one["source"], one["fallback"]) for one in tokens} == {("dice", True)}
    assert {one["source_distribution"] for one in tokens} == {"qr-entropy-dice"}
