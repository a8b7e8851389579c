# SPDX-License-Identifier: Apache-2.0
"""What works without POSIX: every import, and the path of a laptop with Windows.

The processes of these tests see Python as it is there; see ``without_posix/sitecustomize.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

HIDING = Path(__file__).with_name("without_posix")
TOY = Path(__file__).with_name("chat") / "toy_engine.py"

PACKAGES = (
    "qr_entropy_cryptalabs",
    "qr_entropy_http",
    "qr_entropy_serial",
    "qr_entropy_sources",
    "qr_sampler",
    "qr_sampler_accel",
    "qr_sampler_cli",
    "qr_sampler_grpc",
    "qr_sampler_lab",
    "qr_sampler_local",
    "qr_sampler_tsd",
    "qr_sampler_vllm",
)
INSTALLED = tuple(name for name in PACKAGES if find_spec(name))

ENGINES = (
    "equinox fastapi gguf llama_cpp mlx mlx_lm numba onnxruntime_genai prometheus_client py_ecc "
    "rfc3161_client thrml torch transformers triton vllm"
)
"""What modules may lack that are adapters of engines or belong to an extra."""

IMPORT_ALL = """
import importlib, pkgutil, sys

optional = set(sys.argv[1].split())
# vLLM is for Linux, and takes longest to import.
sys.modules["vllm"] = sys.modules["triton"] = None
for name in sys.argv[2:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] not in optional:
                raise SystemExit(f"{module.name}: {error}")
        except ImportError as error:
            raise SystemExit(f"{module.name}: {error}")
print(len([name for name in sys.modules if name.startswith(tuple(sys.argv[2:]))]))
"""

SEEN = """
import os, select, signal, socket, subprocess, sys

assert os.name == "nt" and sys.platform == "win32"
assert not hasattr(os, "fork") and not hasattr(signal, "SIGKILL")
assert not hasattr(socket, "AF_UNIX") and not hasattr(select, "poll")
try:
    import fcntl
except ImportError:
    # The standard library goes on as before.
    print(subprocess.run([sys.executable, "-c", "import os; print(hasattr(os, 'fork'))"],
        stdout=subprocess.PIPE, check=True, text=True).stdout)
"""

LOOP = """
import numpy as np
from qr_sampler_local import LocalSampler

with LocalSampler("m") as sampler:
    rows = [sampler.sequence([1], max_tokens=4) for _ in range(2)]
    while not all(row.ended for row in rows):
        sampler.step(np.zeros((2, 8), np.float32), rows)
print(sum(len(row.tokens) for row in rows))
"""


def run(*arguments: str, status: int = 0, text: str = "", **variables: str) -> str:
    """Runs Python without POSIX and returns what it has printed, errors included."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(**variables),
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QR_")}
    places = os.pathsep.join([str(HIDING), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": places, "COLUMNS": "200", **variables}


def command(*arguments: str, status: int = 0, **variables: str) -> str:
    return run("-m", "qr_sampler_cli", *arguments, status=status, **variables)


def test_posix_is_hidden_from_ours_and_their_children_and_from_nobody_else() -> None:
    assert run("-c", SEEN).strip() == "False"


@pytest.mark.skipif(len(INSTALLED) < len(PACKAGES), reason="is about all packages together")
def test_every_package_is_examined() -> None:
    """Where the others are: in the workspace, and in the session with engines."""
    folder = Path(__file__).resolve().parents[2]
    names = {path.parent.name for path in folder.glob("*/src/*/__init__.py")}
    assert not names or names == set(PACKAGES)


@pytest.mark.heavy
def test_every_module_imports() -> None:
    assert int(run("-c", IMPORT_ALL, ENGINES, *INSTALLED).splitlines()[-1]) > 300


def test_a_loop_of_ones_own_has_a_whole_ledger(tmp_path: Path) -> None:
    assert run("-c", LOOP, QR_LEDGER_DIR=str(tmp_path), QR_SAMPLE_COUNT="2048").strip() == "8"
    (ledger,) = tmp_path.glob("*.jsonl")
    kinds = [json.loads(line)["kind"] for line in ledger.read_text("utf-8").splitlines()]
    assert kinds.count("token") == 8
    assert kinds[-1] == "close"
    assert b"\r" not in ledger.read_bytes()


def test_generate_and_chat_account_for_every_token(tmp_path: Path) -> None:
    ledger = {"QR_LEDGER_DIR": str(tmp_path), "QR_SAMPLE_COUNT": "2048"}
    shown = run(str(TOY), "generate", "The rays", "--model=m", "--max-tokens=8", **ledger)
    assert "8 tokens | 100.0 % from system" in shown
    shown = run(str(TOY), "chat", "--model=m", "--max-tokens=5", text="Hello\n", **ledger)
    assert "5 tokens | 100.0 % from system" in shown
    audited = command("audit", str(tmp_path))
    assert sum(map(int, re.findall(r"(\d+) tokens$", audited, re.MULTILINE))) == 13
    assert "2 complete: holds" in audited


@contextlib.contextmanager
def entropy_server() -> Iterator[str]:
    """Yields the address of a server of the command, over TCP."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "qr_sampler_cli", "serve-entropy", "--address=127.0.0.1:0"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            log.seek(0)
            assert line.startswith("listening on "), line + log.read()
            yield line.split()[-1]
        finally:
            process.kill()
            process.communicate()


def test_a_server_over_tcp_chooses_the_tokens(tmp_path: Path) -> None:
    pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")
    with entropy_server() as address:
        variables = {
            "QR_ENTROPY_SOURCE_TYPE": "quantum_grpc",
            "QR_GRPC_SERVER_ADDRESS": address,
            "QR_CB_MIN_TIMEOUT_MS": "5000",
        }
        arguments = ("--model=m", "--max-tokens=8", "--require-primary")
        shown = run(str(TOY), "generate", "The rays", *arguments, **variables)
    assert "8 tokens | 100.0 % from quantum_grpc" in shown


@pytest.mark.heavy
def test_sources_and_doctor_say_what_is_here() -> None:
    listed = command("sources", QR_DEVICE_FILE_PATH="/dev/urandom")
    assert re.search(r"^\* system +available", listed, re.MULTILINE)
    assert "misconfigured" in listed
    assert "Traceback" not in listed
    # Where there is no engine to examine, that is a problem.
    examined = command("doctor", "transformers", status=0 if find_spec("transformers") else 1)
    assert re.search(r"ok +source +system", examined)
    assert "Traceback" not in examined


@pytest.mark.parametrize(
    ("source", "package", "remedy"),
    [
        ("device_file", "qr_entropy_sources", "Windows does not have; serve the device"),
        ("serial", "qr_entropy_serial", "on POSIX systems only; on Windows, run the engine in WSL"),
        ("cryptalabs", "qr_entropy_cryptalabs", "POSIX systems only; on Windows, run the engine"),
        ("direct", "qr_sampler_grpc", "no Unix domain sockets on this system; use TCP"),
        ("quantum_grpc", "qr_sampler_grpc", "no Unix domain sockets on this system; use TCP"),
    ],
)
def test_what_cannot_work_says_so_and_names_a_remedy(
    source: str, package: str, remedy: str
) -> None:
    pytest.importorskip(package, reason="another package of this project")
    script = (
        "from qr_sampler import create_source\n"
        "from qr_sampler.errors import ConfigError\n"
        f"try: create_source({source!r})\n"
        "except ConfigError as error: print(error)"
    )
    assert remedy in run("-c", script, QR_GRPC_SERVER_ADDRESS="unix:///run/x.sock")


def test_a_server_at_a_unix_socket_is_refused() -> None:
    pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")
    told = command("serve-entropy", "--address=unix:///tmp/x.sock", status=2)
    assert "use TCP, such as 127.0.0.1:50051" in told


def test_quotas_are_locked_without_flock(tmp_path: Path) -> None:
    pytest.importorskip("qr_entropy_http", reason="another package of this project")
    script = (
        "import os, sys\n"
        "from qr_entropy_http.quota.file_lock import lock, unlock\n"
        "first, second = (os.open(sys.argv[1], os.O_RDWR | os.O_CREAT) for _ in range(2))\n"
        "print(lock(first), lock(second), unlock(first), lock(second))"
    )
    assert run("-c", script, str(tmp_path / "lock")).strip() == "True False None True"
