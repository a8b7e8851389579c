# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler probe``: what it prints, how it ends, and what it never shows."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler import Settings, create_source
from qr_sampler_cli.main import app

pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")
import grpc

from qr_sampler_grpc.link.quota_pacer import QuotaPacer
from qr_sampler_grpc.proto.entropy_service_pb2 import EntropyRequest, EntropyResponse
from qr_sampler_grpc.server import ServerTls, serve

SECRET = "s3cret-key-0xdeadbeef"
QUICK = ("--draws=3", "--bytes=2048", "--max-bytes=0")
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides the operator's own variables and `.env` file from every test."""
    for name in os.environ:
        if name.upper().startswith("QR_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kit() -> Iterator[Callable[..., str]]:
    """Starts servers of the kit and returns their address."""
    with ExitStack() as running:
        yield (
            lambda **options: (
                running.enter_context(serve(os.urandom, "127.0.0.1:0", **options)).address
            )
        )


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Starts servers that answer single calls with what a function returns."""
    with ExitStack() as running:

        def start(answer: Callable[[EntropyRequest], EntropyResponse]) -> str:
            def handle(message: bytes, context: grpc.ServicerContext) -> bytes:
                request = EntropyRequest.FromString(message)
                if request.bytes_needed > 2**20:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many")
                return answer(request).SerializeToString()

            methods = {"GetEntropy": grpc.unary_unary_rpc_method_handler(handle)}
            server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler("qr_entropy.EntropyService", methods),)
            )
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            running.callback(lambda: server.stop(0).wait())
            return f"127.0.0.1:{port}"

        yield start


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["probe", *map(str, arguments)])


def test_a_usable_server_is_described_with_the_lines_to_paste(kit: Callable[..., str]) -> None:
    address = kit(device_id="unit-3", max_bytes_per_request=3000)
    result = run(address, "--draws=3", "--bytes=2048", "--max-bytes=65536", "--conformance")
    assert result.exit_code == 0, result.output
    assert re.search(r"bidi_streaming +p50 \d+\.\d+ ms, p99 \d+\.\d+ ms, 4 draws", result.stdout)
    assert "3,000 bytes are accepted, 3,001 are not" in result.stdout
    assert "unit-3" in result.stdout
    assert f"{address} is usable" in result.stdout
    assert "export QR_GRPC_MAX_BYTES_PER_REQUEST=3000" in result.stdout.splitlines()
    (said,) = result.stderr.splitlines()
    assert re.search(r"up to [\d,]+ requests for up to [\d,]+ random bytes$", said)


def test_data_for_programs(kit: Callable[..., str]) -> None:
    result = run(kit(), *QUICK, "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == 0
    assert data["verdict"] == "usable"
    assert {mode["mode"]: mode["works"] for mode in data["modes"]} == {
        "unary": True,
        "server_streaming": True,
        "bidi_streaming": True,
    }
    assert data["configuration"]["QR_GRPC_MODE"] == data["fastest_mode"]
    assert all(case["outcome"] != "failed" for case in data["cases"])


def test_what_is_printed_can_be_pasted(kit: Callable[..., str], tmp_path: Path) -> None:
    address = kit(max_bytes_per_request=3000)
    result = run(address, "--draws=3", "--bytes=2048", "--timeout-ms=4000")
    _, pasted = result.stdout.split("to draw from it:\n")
    command = 'import os; print({k: v for k, v in os.environ.items() if k.startswith("QR_")})'
    shell = subprocess.run(
        ["/bin/sh", "-c", f"{pasted}\n{shlex.quote(sys.executable)} -c '{command}'"],
        env={},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    variables = ast.literal_eval(shell.stdout)
    assert variables["QR_ENTROPY_SOURCE_TYPE"] == "quantum_grpc"
    assert variables["QR_GRPC_SERVER_ADDRESS"] == address
    assert variables["QR_GRPC_TIMEOUT_MS"] == "4000.0"
    assert variables["QR_GRPC_MAX_BYTES_PER_REQUEST"] == "3000"
    # The same lines are good for a file.
    Path(".env").write_text(pasted, "utf-8")
    assert Settings.load().entropy_source_type == "quantum_grpc"


def test_a_key_of_the_environment_is_not_given_twice(
    kit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QR_GRPC_API_KEY", SECRET)
    address = kit(api_key=SECRET)
    pasted = run(address, *QUICK).stdout.split("to draw from it:\n")[1]
    for line in pasted.splitlines():
        if line.startswith("export "):
            name, value = line.removeprefix("export ").split("=", 1)
            monkeypatch.setenv(name, shlex.split(value)[0])
    assert "# and the API key" in pasted
    source = create_source("quantum_grpc")
    assert len(source.draw(5).data) == 5
    source.close()


def test_a_used_up_quota_is_no_verdict(
    kit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    impatient = functools.partial(QuotaPacer, sleep=slept.append)
    monkeypatch.setattr("qr_sampler_grpc.probe.QuotaPacer", impatient)
    address = kit(bytes_per_day=5000)
    run(address, "--draws=1", "--bytes=2400", "--max-bytes=0")
    slept.clear()
    result = run(address, *QUICK)
    assert result.exit_code == 2
    assert "was NOT JUDGED, because its quota is used up" in result.stdout
    assert "NOT USABLE" not in result.stdout
    assert "no problems, no warnings" in result.stdout
    assert re.search(r"skipped +unary +not judged: .*5000 bytes a day", result.stdout)
    assert "waiting 62 s: " in result.stderr
    assert slept == [62.0]
    assert "export" not in result.stdout
    assert json.loads(run(address, *QUICK, "--json").stdout)["verdict"] == "not judged"


def test_the_quota_of_the_settings_is_announced(
    kit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(
        "qr_sampler_grpc.probe.QuotaPacer",
        # Time that does not pass would be waited for again and again.
        lambda limits, **options: QuotaPacer(None, **{**options, "sleep": slept.append}),
    )
    monkeypatch.setenv("QR_GRPC_MAX_REQUESTS_PER_MINUTE", "5")
    result = run(kit(), *QUICK)
    announced = r"^with the quota of 5 requests a minute that takes at least \d+ min$"
    assert re.search(announced, result.stderr, re.MULTILINE)


def test_nobody_is_listening() -> None:
    with serve(os.urandom, "127.0.0.1:0") as server:
        address = server.address
    result = run(address, *QUICK)
    assert result.exit_code == 1
    assert "no answer from" in result.stdout
    assert "NOT USABLE" in result.stdout
    assert "QR_ENTROPY_SOURCE_TYPE" not in result.stdout
    assert "Traceback" not in result.output


def test_faults_are_problems_with_a_remedy(answering: Callable[..., str]) -> None:
    address = answering(
        lambda request: EntropyResponse(
            data=bytes(request.bytes_needed), generation_timestamp_ns=10**18
        )
    )
    result = run(address, *QUICK)
    assert result.exit_code == 1
    assert "uniform bytes do this less than once in 1e9 probes" in result.stdout
    assert re.search(r"warning +server_streaming", result.stdout)
    assert re.search(r"skipped +commitment +does not come back", result.stdout)
    assert re.search(r"warning +size-zero", result.stdout)
    result = run(address, *QUICK, "--conformance", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["conforms"] is False
    result = run(address, *QUICK, "--conformance")
    assert re.search(r"problem +answers-differ", result.stdout)
    assert "some stamps lie outside" in result.stdout or "its clock is between" in result.stdout


def test_short_answers_are_not_usable(answering: Callable[..., str]) -> None:
    address = answering(lambda request: EntropyResponse(data=b"x"))
    result = run(address, *QUICK)
    assert result.exit_code == 1
    assert "asked for 2048 bytes, received 1" in result.stdout


def test_an_old_server_is_usable_in_the_mode_that_it_has(answering: Callable[..., str]) -> None:
    stamps = iter(range(10**18, 10**19, 10**9))
    address = answering(
        lambda request: EntropyResponse(
            data=os.urandom(request.bytes_needed), generation_timestamp_ns=next(stamps)
        )
    )
    result = run(address, *QUICK)
    assert result.exit_code == 0, result.output
    assert "QR_GRPC_MODE=unary" in result.stdout
    assert re.search(r"skipped +device +the server does not say", result.stdout)
    assert re.search(r"warning +time of measurement +some stamps lie outside", result.stdout)
    assert re.search(r"skipped +sequence id +does not come back", result.stdout)
    few = run(address, "--draws=1", "--bytes=8", "--max-bytes=16")
    assert few.exit_code == 0
    assert "16 bytes are too few; draw at least 64" in few.stdout
    assert "16 bytes are accepted, and more was not tried" in few.stdout


def test_a_signature_is_checked_with_the_public_key(
    kit: Callable[..., str], tmp_path: Path
) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives import serialization

    from qr_sampler_grpc.protocol.attestation import SigningKey

    key = ed25519.Ed25519PrivateKey.generate()
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    signed = run(kit(signing_key=SigningKey(private)), *QUICK, "--public-key", public)
    assert signed.exit_code == 0, signed.output
    assert re.search(r"ok +signature +verified with the public key", signed.stdout)
    assert f"QR_GRPC_PUBLIC_KEY={public}" in signed.stdout
    unsigned = run(kit(), *QUICK, "--public-key", public)
    assert unsigned.exit_code == 1
    assert re.search(r"problem +signature +the answer is not signed", unsigned.stdout)


def test_a_profile_has_the_modes_that_it_has(tmp_path: Path) -> None:
    with serve(os.urandom, "127.0.0.1:0") as server:
        result = run(server.address, *QUICK, "--profile=qrng")
    assert result.exit_code == 1
    assert re.search(r"problem +unary +draw 1 failed: .* has no method", result.stdout)
    assert re.search(r"skipped +bidi_streaming +the profile 'qrng' has no", result.stdout)


def test_text_of_a_server_cannot_steer_the_terminal(answering: Callable[..., str]) -> None:
    address = answering(
        lambda request: EntropyResponse(
            data=os.urandom(request.bytes_needed), device_id="\x1b[31mred"
        )
    )
    result = run(address, *QUICK)
    assert "\x1b" not in result.output
    assert r"\x1b[31mred" in result.stdout


def test_keys_come_from_a_file_and_are_never_shown(
    kit: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = kit(api_key=SECRET)
    key_file = tmp_path / "my key"
    key_file.write_text(SECRET + "\n", "utf-8")
    monkeypatch.setenv("QR_GRPC_API_KEY", "another")
    result = run(address, *QUICK, "--api-key-file", key_file)
    assert result.exit_code == 0, result.output
    assert f"QR_GRPC_API_KEY_FILE='{key_file}'" in result.stdout
    assert re.search(r"ok +key-missing", result.stdout)
    refused = run(address, *QUICK)
    assert refused.exit_code == 1
    assert "does not accept the API key" in refused.stdout
    monkeypatch.delenv("QR_GRPC_API_KEY")
    missing = run(address, *QUICK)
    assert missing.exit_code == 1
    assert "asks for an API key and none is set" in missing.stdout
    assert SECRET not in result.output + refused.output + missing.output


def certificate(folder: Path) -> tuple[Path, Path]:
    certificates = pytest.importorskip("qr_sampler_grpc.testing.certificates")
    identity = certificates.issue(folder, "server")
    return identity.certificate, identity.private_key


def test_encrypted_connections(kit: Callable[..., str], tmp_path: Path) -> None:
    certificate_file, key_file = certificate(tmp_path)
    address = kit(tls=ServerTls(certificate=certificate_file, private_key=key_file))
    result = run(address, *QUICK, "--ca", certificate_file)
    assert result.exit_code == 0, result.output
    assert "QR_GRPC_TLS_ENABLED=true" in result.stdout
    assert f"QR_GRPC_TLS_CA_CERT={certificate_file}" in result.stdout
    mutual = kit(
        tls=ServerTls(
            certificate=certificate_file, private_key=key_file, client_ca=certificate_file
        )
    )
    client = ("--client-cert", certificate_file, "--client-key", key_file)
    result = run(mutual, *QUICK, "--ca", certificate_file, *client)
    assert result.exit_code == 0, result.output
    assert f"QR_GRPC_TLS_CLIENT_KEY={key_file}" in result.stdout
    assert run(mutual, *QUICK, "--ca", certificate_file).exit_code == 1
    # Without the file nobody vouches for the server.
    result = run(address, *QUICK, "--tls")
    assert result.exit_code == 1
    assert "no encrypted connection to" in result.stdout
    result = run(address, *QUICK)
    assert result.exit_code == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "the port is missing"),
        (("127.0.0.1:1", "--profile=other"), "no such profile"),
        (("127.0.0.1:1", "--profile=direct"), "not the path of a Unix domain socket"),
        (("127.0.0.1:1", "--api-key-file=absent"), "cannot read the API key from absent"),
        (("127.0.0.1:1", "--ca=absent"), "cannot read the certificates absent"),
        (
            ("127.0.0.1:1", "--client-cert=absent"),
            "mutual TLS needs the client's certificate and its key",
        ),
        (("127.0.0.1:1", "--public-key=absent"), "cannot read the public key absent"),
        (("127.0.0.1:1", "--profile=qrng", "--conformance"), "about the profile 'qr_entropy'"),
        (("127.0.0.1:1", "--profile=qrng", "--draws=50000"), "500,000,000 a day that"),
        (("127.0.0.1:1", "--draws=0"), "--draws"),
        (("127.0.0.1:1", "--draws=50", "--bytes=16777216"), "lower --draws or --bytes"),
        ((), "Missing argument"),
    ],
)
def test_wrong_usage_is_told_from_an_unusable_server(arguments: tuple[str, ...], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_the_extra_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qr_sampler_grpc", None)
    monkeypatch.delitem(sys.modules, "qr_sampler_grpc.probe", raising=False)
    result = run("127.0.0.1:1")
    assert result.exit_code == 2
    assert "pip install ./packages/qr-sampler-grpc" in result.stderr


def test_the_example_of_the_readme_runs() -> None:
    section = README.read_text("utf-8").split("<!-- probe -->\n")[1].split("<!-- /probe -->")[0]
    code = section.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, str(README), "exec"), names)
    assert "QR_ENTROPY_SOURCE_TYPE=quantum_grpc" in names["result"].stdout
