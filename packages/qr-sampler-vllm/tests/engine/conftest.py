# SPDX-License-Identifier: Apache-2.0
"""Real engines and real servers, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

START_TIMEOUT_S = 300.0
"""A first start of vLLM takes a minute on two busy cores."""

RUNNER_VARIABLES = {
    "v1": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
    "v2": {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"},
}

ENTROPY_SERVER = Path(__file__).resolve().parents[4] / "servers" / "simple_urandom_server.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the engine tests, with the reason, where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is not None:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed; run `nox -s vllm`"))


def engine_environment(runner: str, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the environment of an engine process, free of the caller's own settings."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("QR_")}
    return {
        **inherited,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        **RUNNER_VARIABLES[runner],
        **(changes or {}),
    }


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small trained model; ``QR_TINY_MODEL_DIR`` names a ready one."""
    ready = os.environ.get("QR_TINY_MODEL_DIR")
    if ready:
        return Path(ready)
    directory = tmp_path_factory.mktemp("model") / "tiny"
    command = [sys.executable, "-m", "qr_sampler_cli", "tiny-model", str(directory)]
    subprocess.run([*command, "--steps", "20"], check=True)
    return directory


@pytest.fixture(scope="session")
def run_engine_script() -> Callable[..., Any]:
    """Runs Python source with an in-process engine and returns the finished process."""

    def run(
        source: str, *, arguments: Sequence[str], env: Mapping[str, str], runner: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", **env}
        return subprocess.run(
            [sys.executable, "-c", source, *arguments],
            env=engine_environment(runner, variables),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )

    return run


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds loopback ports that nobody listens on."""
    return _free_port


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._command = list(command)
        self._env = dict(env)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process unless it runs."""
        if self._process is None or self._process.poll() is not None:
            with self._log.open("ab") as output:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._env,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

    def send(self, number: signal.Signals) -> None:
        """Sends a signal and waits for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(timeout=60)

    def kill(self) -> None:
        """Ends the process and its children without giving them a chance."""
        if self._process is not None and self._process.poll() is None:
            # vLLM's engine and worker processes outlive a killed parent, but stay in its group.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=60)

    def stop(self) -> None:
        """Asks the process to end."""
        self.send(signal.SIGINT)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Waits until *ready* says so; fails with the log when the process ends instead."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            running = self._process.poll() is None
            assert running, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")
            time.sleep(0.2)


class EntropyServer(Process):
    """The reference entropy server on a port that it keeps over restarts."""

    def __init__(self, log: Path) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        command = [sys.executable, str(ENTROPY_SERVER), "--address", self.address]
        super().__init__(command, os.environ, log)

    def start(self) -> None:
        """Starts the server and waits until it accepts connections."""
        super().start()
        self.wait_until(self._accepts)

    def _accepts(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0


class OpenAIServer(Process):
    """vLLM's HTTP server with the tiny model."""

    def __init__(self, model: Path, runner: str, env: Mapping[str, str], log: Path) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        # The console script of the CPU build looks for a distribution called "vllm" and fails.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(model), "--served-model-name", "tiny"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
        command += ["--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "4"]
        super().__init__(command, engine_environment(runner, env), log)

    def healthy(self) -> bool:
        """Whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="session")
def start_entropy_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], EntropyServer]]:
    """Starts entropy servers that end with the tests."""
    started: list[EntropyServer] = []

    def start() -> EntropyServer:
        server = EntropyServer(tmp_path_factory.mktemp("entropy") / "log")
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def start_openai_server(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., OpenAIServer]]:
    """Starts HTTP servers that end with the tests."""
    started: list[OpenAIServer] = []

    def start(*, runner: str, env: Mapping[str, str]) -> OpenAIServer:
        server = OpenAIServer(tiny_model, runner, env, tmp_path_factory.mktemp("vllm") / "log")
        started.append(server)
        server.start()
        server.wait_until(server.healthy)
        return server

    yield start
    for server in started:
        server.kill()
