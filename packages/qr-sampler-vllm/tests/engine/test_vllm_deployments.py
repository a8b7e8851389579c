# SPDX-License-Identifier: Apache-2.0
"""Every profile of `deployments/` without containers: its own commands and its own environment.

The commands come from the compose file or the units as they stand, with the variables of the
profile's example file. Replaced are only

- programs and folders of an image by those of this repository and of the test,
- addresses and ports by free ones, and the address of firefly-1 by a stand-in's,
- the model by the tiny one, under the name of the profile's, and `half` by `float32`: the CPU build
  has no such kernels for it,
- the memory for the key-value cache on a CPU by one gibibyte.

Added are `--enforce-eager`, since compiling would take minutes, and a chat template, since the tiny
model has none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.testing import records_in

grpc = pytest.importorskip("grpc", reason="comes with the vLLM environment; run `nox -s vllm`")
dotenv = pytest.importorskip("dotenv", reason="comes with the vLLM environment")
yaml = pytest.importorskip("yaml", reason="comes with the vLLM environment")

ROOT = Path(__file__).resolve().parents[4]
DEPLOYMENTS = ROOT / "deployments"
MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
FIREFLY_KEY = "a-key-of-the-test"

pytestmark = [
    pytest.mark.skipif(not DEPLOYMENTS.is_dir(), reason="the deployments are not in the sdist"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the guides' commands use curl"),
]


def interpolate(text: str, variables: Mapping[str, str | None]) -> str:
    """Returns *text* as docker compose does: an empty variable means the default."""
    pattern = r"\$\{(\w+):-([^}]*)\}"
    return re.sub(pattern, lambda match: variables.get(match[1]) or match[2], text)


class Containers:
    """What the compose file of a profile starts, with the variables of its example."""

    def __init__(self, name: str) -> None:
        self.folder = DEPLOYMENTS / name
        variables = dotenv.dotenv_values(self.folder / ".env.example")
        text = (self.folder / "docker-compose.yml").read_text("utf-8")
        self._services = yaml.safe_load(interpolate(text, variables))["services"]

    @property
    def vllm(self) -> list[str]:
        command: list[str] = self._services["vllm"]["command"]
        return command

    @property
    def environment(self) -> dict[str, str]:
        values = self._services["vllm"]["environment"]
        return {key: "" if value is None else str(value) for key, value in values.items()}

    @property
    def server(self) -> list[str]:
        """The command of the entropy server with the programs of this repository."""
        service = self._services["entropy-server"]
        program, *arguments = service["command"]
        if program == "qr-sampler":
            return [sys.executable, "-m", "qr_sampler_cli", *arguments]
        assert program == "python"
        path, *options = arguments
        mounts = [entry.split(":") for entry in service["volumes"]]
        mounted = [self.folder / source for source, target, *_ in mounts if target == path]
        script = mounted[0] if mounted else ROOT / Path(path).relative_to("/opt/qr-sampler")
        return [sys.executable, str(script), *options]


class Units:
    """What the units of systemd start, with the variables of the example files of `local`."""

    folder = DEPLOYMENTS / "local"

    def __init__(self, credentials: Path) -> None:
        self._credentials = str(credentials)

    @property
    def vllm(self) -> list[str]:
        env, _, program, *arguments = self._command("qr-vllm.service", "vllm.env")
        assert env == "/usr/bin/env"
        return [Path(program).name, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        lines = self._values("qr-vllm.service", "Environment")
        _, by_command, *_ = self._command("qr-vllm.service", "vllm.env")
        words = (word.partition("=") for line in [*lines, by_command] for word in line.split())
        by_unit = {name: value for name, _, value in words}
        # Where things are kept on the machine that the unit is for.
        kept = {name: value for name, value in by_unit.items() if "/var/cache" not in value}
        return {**kept, **self._variables("vllm.env")}

    @property
    def server(self) -> list[str]:
        python, script, *options = self._command("qr-entropy-server.service", "entropy-server.env")
        assert python == "/opt/qr-sampler/venv/bin/python"
        return [sys.executable, str(ROOT / Path(script).relative_to("/opt/qr-sampler")), *options]

    def _values(self, unit: str, key: str) -> list[str]:
        text = (DEPLOYMENTS / "systemd" / unit).read_text("utf-8")
        return re.findall(rf"^{key}=(.*)$", text, flags=re.MULTILINE)

    def _variables(self, file: str) -> dict[str, str]:
        found = dotenv.dotenv_values(self.folder / f"{file}.example")
        return {name: value or "" for name, value in found.items()}

    def _command(self, unit: str, file: str) -> list[str]:
        """Returns the words of a command; `$NAME` stands for any number of them."""
        variables = {**self._variables(file), "CREDENTIALS_DIRECTORY": self._credentials}
        (line,) = self._values(unit, "ExecStart")
        words: list[str] = []
        for word in line.split():
            if re.fullmatch(r"\$\w+", word):
                words += variables[word[1:]].split()
            else:
                words.append(re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], word))
        return words


class Firefly:
    """Speaks `qrng`, demands its key and enforces the limits of firefly-1."""

    MAX_BYTES = 13_312
    PER_MINUTE = 500

    def __init__(self) -> None:
        from qr_sampler_grpc.proto.qrng_pb2 import RandomRequest, RandomResponse

        self.served: list[int] = []
        self.refused: list[str] = []
        self._times: list[float] = []
        self._lock = threading.Lock()
        self._answer = RandomResponse
        method = grpc.unary_unary_rpc_method_handler(
            self._draw,
            request_deserializer=RandomRequest.FromString,
            response_serializer=RandomResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(
            "qrng.QuantumRNG", {"GetRandomBytes": method}
        )
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((service,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def _draw(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._check(request.num_bytes, context)
            self.served.append(request.num_bytes)
        data = os.urandom(request.num_bytes)
        return self._answer(data=data, timestamp=time.time_ns() // 1000, device_id="firefly-1")

    def _check(self, count: int, context: Any) -> None:
        now = time.monotonic()
        self._times = [made for made in self._times if now - made < 60.0]
        if dict(context.invocation_metadata()).get("api-key") != FIREFLY_KEY:
            self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, "no such key")
        if not 1 <= count <= self.MAX_BYTES:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"{count} bytes")
        if len(self._times) >= self.PER_MINUTE:
            self._refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "500 a minute")
        self._times.append(now)

    def _refuse(self, context: Any, code: Any, message: str) -> None:
        self.refused.append(message)
        context.abort(code, message)


class Stack:
    """A running profile: its API and its records."""

    def __init__(self, port: int, ledger: Path, folder: Path) -> None:
        self._port = port
        self._ledger = ledger
        self._folder = folder

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as found:
                return int(found.status)
        except OSError:
            return 0

    def run_guide(self) -> dict[str, Any]:
        """Runs the request of the profile's README, for fewer tokens, and returns the answer."""
        text = (self._folder / "README.md").read_text("utf-8")
        blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
        (command,) = (block for block in blocks if "/v1/" in block)
        # Deadlines adapt after ten draws, and the machines that run this are small and busy.
        command = re.sub(r'"max_tokens": \d+', '"max_tokens": 8', command)
        done = subprocess.run(
            ["bash", "-c", command.replace(":8000/", f":{self._port}/")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def complete(self, **arguments: Any) -> dict[str, Any]:
        body = {"model": MODEL, "prompt": "Light is", **arguments}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=240) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def records(self, key: str, count: int) -> list[dict[str, Any]]:
        """Returns the records of a request's tokens, waiting until so many are written."""
        deadline = time.monotonic() + 60
        while True:
            found = [line for line in records_in(self._ledger) if line.get("request_key") == key]
            found = [line for line in found if line["kind"] in ("token", "forced")]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{key}: {len(found)} of {count} records"
            time.sleep(0.1)


@pytest.fixture
def socket_address() -> Iterator[str]:
    """An address short enough for a socket, which pytest's own folders are not everywhere."""
    with tempfile.TemporaryDirectory(prefix="qr") as folder:
        yield f"unix://{folder}/entropy.sock"


def listens(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix("unix://")) == 0


@pytest.fixture
def start_stack(
    start_process: Callable[..., Any],
    tiny_model: Path,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> Callable[..., Stack]:
    """Starts the vLLM of a profile."""

    def start(profile: Containers | Units, replaced: Mapping[str, str]) -> Stack:
        port, ledger = free_port(), tmp_path / "records"
        variables = {**profile.environment, "VLLM_CPU_KVCACHE_SPACE": "1", **replaced}
        assert variables["QR_LEDGER_DIR"] == "/var/lib/qr-sampler/records"
        variables["QR_LEDGER_DIR"] = str(ledger)
        process = start_process(vllm_here(profile.vllm, tiny_model, port), variables, runner="v1")
        stack = Stack(port, ledger, profile.folder)
        process.wait_until(lambda: stack.get("/health") == 200)
        return stack

    return start


def vllm_here(command: list[str], model: Path, port: int) -> list[str]:
    """Returns a command of vLLM with what is replaced on a machine without GPU and network."""
    program, task, served, *options = command
    assert (program, task, served) == ("vllm", "serve", MODEL)
    # The console script of the CPU build looks for a distribution called "vllm" and fails.
    started = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={model}"]
    started += [f"--served-model-name={served}", "--enforce-eager"]
    started += [f"--chat-template={CHAT_TEMPLATE}"]
    exchanged = {
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=8000": f"--port={port}",
        "--dtype=half": "--dtype=float32",
    }
    assert len(set(options) & set(exchanged)) >= 2, options
    return started + [exchanged.get(option, option) for option in options]


def assert_chosen_by(stack: Stack, device: str) -> None:
    answer = stack.run_guide()
    count = answer["usage"]["completion_tokens"]
    assert count >= 1
    records = stack.records("first", count)
    assert len(records) == count
    for record in records:
        assert (record["kind"], record["source"], record["fallback"]) == (
            "token",
            "quantum_grpc",
            False,
        ), record
        assert record["device_id"] == device
        assert record["block_bytes"] == 10_240
    # The plugin's own route is there because the profile names the plugin.
    assert stack.get("/qr/status") == 200


@pytest.mark.parametrize(
    ("name", "device"),
    [("urandom", "system"), ("timing", "timing_noise"), ("_template", "template-0001")],
)
def test_tokens_of_a_profile_with_a_server_come_from_it(
    name: str,
    device: str,
    start_process: Callable[..., Any],
    start_stack: Callable[..., Stack],
    socket_address: str,
) -> None:
    profile = Containers(name)
    address = profile.environment["QR_GRPC_SERVER_ADDRESS"]
    command = [word.replace(address, socket_address) for word in profile.server]
    assert f"--address={socket_address}" in command
    server = start_process(command, os.environ)
    server.wait_until(lambda: listens(socket_address))
    stack = start_stack(profile, {"QR_GRPC_SERVER_ADDRESS": socket_address})
    assert_chosen_by(stack, device)


def test_tokens_of_the_units_come_from_the_server_beside_them(
    start_process: Callable[..., Any],
    start_stack: Callable[..., Stack],
    socket_address: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "api-key").write_text("0123456789abcdef\n", "utf-8")
    profile = Units(tmp_path)
    address = profile.environment["QR_GRPC_SERVER_ADDRESS"]
    command = [word.replace(address, socket_address) for word in profile.server]
    assert f"--api-key-file={tmp_path}/api-key" in command
    assert profile.environment["QR_GRPC_API_KEY_FILE"] == f"{tmp_path}/api-key"
    server = start_process(command, os.environ)
    server.wait_until(lambda: listens(socket_address))
    stack = start_stack(profile, {"QR_GRPC_SERVER_ADDRESS": socket_address})
    assert_chosen_by(stack, "template-0001")


@pytest.fixture
def firefly() -> Iterator[Firefly]:
    device = Firefly()
    yield device
    device.stop()


def test_tokens_of_firefly_come_from_it_within_its_limits(
    start_stack: Callable[..., Stack], firefly: Firefly, tmp_path: Path
) -> None:
    key = tmp_path / "api-key"
    key.write_text(FIREFLY_KEY, "utf-8")
    replaced = {
        "QR_GRPC_SERVER_ADDRESS": firefly.address,
        "QR_GRPC_API_KEY_FILE": str(key),
        # What follows makes hundreds of draws on a small and busy machine.
        "QR_CB_MIN_TIMEOUT_MS": "2000",
    }
    stack = start_stack(Containers("firefly-1"), replaced)
    assert_chosen_by(stack, "firefly-1")

    began = time.monotonic()
    wanted = firefly.PER_MINUTE + 100
    answer = stack.complete(
        max_tokens=wanted, min_tokens=wanted, vllm_xargs={"qr_request_key": "long"}
    )
    took_s = time.monotonic() - began
    records = stack.records("long", answer["usage"]["completion_tokens"])
    tokens = [record for record in records if record["kind"] == "token"]
    assert {record["source"] for record in tokens} == {"quantum_grpc"}
    assert not any(record["fallback"] for record in tokens)
    assert max(firefly.served) <= firefly.MAX_BYTES
    # It never had to refuse: the quota is kept on this side.
    assert firefly.refused == []
    if took_s > 50:
        pytest.skip("everything but the used-up quota is shown: 500 draws took most of a minute")
    # All of it was within one minute, so the quota was used up: the answer ends, and says why.
    assert len(firefly.served) == firefly.PER_MINUTE
    assert len(tokens) < wanted
    assert records[-1]["kind"] == "forced"
    assert "requests were made within a minute" in json.dumps(records[-1])
