# SPDX-License-Identifier: Apache-2.0
"""A socket of somebody else is not believed: on its owner, on links, and by real other users."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from qr_sampler import EntropyUnavailableError
from qr_sampler_grpc.connection import unix_socket
from qr_sampler_grpc.connection.unix_socket import reason_to_distrust
from qr_sampler_grpc.device import Device
from qr_sampler_grpc.direct import peers
from qr_sampler_grpc.direct.server import serve_direct
from qr_sampler_grpc.direct.source import DirectSource
from qr_sampler_grpc.source import QuantumGrpcSource
from qr_sampler_grpc.testing.patience import NO_BREAKER, PATIENT_MS

NOBODY = 65534
NO_ONE = 4_000_000_000

SERVER = """
    import os, sys
    from qr_sampler_grpc.device import Device
    from qr_sampler_grpc.direct.server import serve_direct
    from qr_sampler_grpc.server import serve

    folder, uid = sys.argv[1], int(sys.argv[2])
    # All that is imported on first use, while it can be read for certain.
    serve(bytes, "127.0.0.1:0").stop(0)
    os.setgid(uid)
    os.setuid(uid)
    device = Device(bytes, "impostor")
    with serve(device, f"unix://{folder}/grpc.sock"), serve_direct(
        device, f"unix://{folder}/direct.sock", allowed_uids=[0]
    ):
        print("ready", flush=True)
        sys.stdin.read()
"""

pytest.importorskip("fcntl", reason="sockets in files have owners on POSIX systems")

by_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def folder(socket_path: Path) -> Path:
    return socket_path.parent


def start(folder: Path, uid: int) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER), str(folder), str(uid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


@pytest.fixture
def sources(folder: Path) -> Iterator[list[DirectSource | QuantumGrpcSource]]:
    made = [
        DirectSource(f"unix://{folder}/direct.sock", timeout_ms=PATIENT_MS, breaker=NO_BREAKER),
        *(
            QuantumGrpcSource(
                f"unix://{folder}/grpc.sock", mode=mode, timeout_ms=PATIENT_MS, breaker=NO_BREAKER
            )
            for mode in ("unary", "server_streaming", "bidi_streaming")
        ),
    ]
    yield made
    for source in made:
        source.close()


@by_root
def test_a_server_of_another_user_is_not_believed(
    folder: Path, sources: list[DirectSource | QuantumGrpcSource]
) -> None:
    folder.chmod(0o1777)
    with start(folder, NOBODY) as server:
        for source in sources:
            with pytest.raises(EntropyUnavailableError, match=f"not believed: .* user {NOBODY}"):
                source.draw(8)
            assert "not believed" in source.status().reason
        server.communicate()


@by_root
def test_a_server_with_a_directory_of_its_own_is_believed() -> None:
    """As systemd makes one for a unit with its own user: below `/run`, which is root's."""
    home = Path(f"/run/qr-sampler-test-{os.getpid()}")
    home.mkdir(mode=0o755)
    os.chown(home, NOBODY, NOBODY)
    try:
        with start(home, NOBODY) as server:
            direct = DirectSource(f"unix://{home}/direct.sock", timeout_ms=PATIENT_MS)
            grpc = QuantumGrpcSource(f"unix://{home}/grpc.sock", timeout_ms=PATIENT_MS)
            for source in (direct, grpc):
                assert source.draw(8).device_id == "impostor"
                source.close()
            # Whoever else may write there could have put the socket there.
            home.chmod(0o777)
            for source in (direct, grpc):
                with pytest.raises(EntropyUnavailableError, match="not believed"):
                    source.draw(8)
            server.communicate()
    finally:
        for name in home.iterdir():
            name.unlink()
        home.rmdir()


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.bind(str(path))


def test_one_of_this_user_or_of_root_is_believed_anywhere(folder: Path) -> None:
    bound(folder / "a.sock")
    folder.chmod(0o777)
    assert reason_to_distrust(str(folder / "a.sock")) == ""
    assert reason_to_distrust(str(folder / "a.sock"), os.geteuid()) == ""
    assert reason_to_distrust(str(folder / "a.sock"), 0) == ""


def test_one_of_another_user_is_not_believed_where_everybody_may_write(folder: Path) -> None:
    path = str(folder / "a.sock")
    bound(folder / "a.sock")
    folder.chmod(0o777)
    assert f"user {NO_ONE}, and others" in reason_to_distrust(path, NO_ONE)
    assert f"can write to {folder}; run the server as this user" in reason_to_distrust(path, NO_ONE)
    with pytest.raises(FileNotFoundError):
        reason_to_distrust(str(folder / "missing.sock"))


@by_root
def test_a_link_is_followed_and_judged_itself(folder: Path) -> None:
    home = Path(f"/run/qr-sampler-link-{os.getpid()}")
    home.mkdir(mode=0o755)
    try:
        os.chown(home, NOBODY, NOBODY)
        bound(home / "e.sock")
        os.chown(home / "e.sock", NOBODY, NOBODY)
        assert reason_to_distrust(str(home / "e.sock")) == ""
        link = folder / "e.sock"
        link.symlink_to(home / "e.sock")
        folder.chmod(0o777)
        assert f"can write to {folder}" in reason_to_distrust(str(link))
        # The other way round: the link is where only root can write, and leads elsewhere.
        bound(folder / "evil.sock")
        os.chown(folder / "evil.sock", NOBODY, NOBODY)
        (home / "e.sock").unlink()
        (home / "e.sock").symlink_to(folder / "evil.sock")
        assert f"can write to {folder}" in reason_to_distrust(str(home / "e.sock"))
    finally:
        for name in home.iterdir():
            name.unlink()
        home.rmdir()


def test_where_the_platform_does_not_tell_the_file_decides(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "direct.sock"
    source = DirectSource(f"unix://{path}", timeout_ms=PATIENT_MS, breaker=NO_BREAKER)
    monkeypatch.setattr(peers, "_PEER_CREDENTIALS", None)
    with serve_direct(Device(bytes), f"unix://{path}"):
        assert source.draw(8).data == bytes(8)
        source.close()
        monkeypatch.setattr(os, "geteuid", lambda: NO_ONE)
        monkeypatch.setattr(unix_socket, "_ROOT", NO_ONE)
        with pytest.raises(EntropyUnavailableError, match="not believed"):
            source.draw(8)
