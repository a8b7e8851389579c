# SPDX-License-Identifier: Apache-2.0
"""What only shows between processes: imports, forks, a killed server and leaks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LEAKS = Path(__file__).parents[1] / "campaigns" / "leaks_direct.py"
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
NEEDS_FORK = pytest.mark.skipif(sys.platform != "linux", reason="forks reliably on Linux only")

RunPython = Callable[..., str]


def test_neither_side_loads_grpc_or_protobuf(run_python: RunPython, socket_path: Path) -> None:
    script = """
        import os, sys
        from qr_sampler_grpc.device import Device
        from qr_sampler_grpc.direct.server import serve_direct
        from qr_sampler.entropy.breaker_settings import BreakerOptions
        from qr_sampler_grpc.direct.source import DirectSource

        with serve_direct(Device(os.urandom), sys.argv[1]) as server:
            source = DirectSource.from_environment()
            assert len(source.committed_draw(20_480, b"digest").data) == 20_480
            source.close()
        print([name for name in sys.modules if name.split(".")[0] == "grpc" or "protobuf" in name])
    """
    address = f"unix://{socket_path}"
    assert run_python(script, address, QR_DIRECT_SERVER_ADDRESS=address) == "[]"


@NEEDS_FORK
def test_a_forked_process_has_a_connection_of_its_own(
    run_python: RunPython, socket_path: Path
) -> None:
    script = """
        import os, sys, threading, time
        from qr_sampler_grpc.device import Device
        from qr_sampler_grpc.direct.server import serve_direct
        from qr_sampler.entropy.breaker_settings import BreakerOptions
        from qr_sampler_grpc.direct.source import DirectSource

        ready, go = os.pipe(), os.pipe()
        server_process = os.fork()
        if server_process == 0:
            os.close(go[1])
            with serve_direct(Device(os.urandom), sys.argv[1]) as server:
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                # The parent closed its source while the child still lived: no copy that the
                # child has inherited may keep a connection open.
                deadline = time.monotonic() + 60
                while server.connections > 1 and time.monotonic() < deadline:
                    time.sleep(0.01)
                os.write(ready[1], b"%d" % server.connections)
                os.read(go[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        source = DirectSource(sys.argv[1], breaker=BreakerOptions.checked(enabled=False))
        ours = source.draw(32).data
        pool = source._pools.current()
        done, answers = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            drawn = [source.draw(32).data for _ in range(100)]
            assert source._pools.current() is not pool
            os.write(answers[1], b"".join(drawn))
            os.read(done[0], 1)
            source.close()
            os._exit(0)
        theirs = b""
        while len(theirs) < 3200:
            theirs += os.read(answers[0], 4096)
        mine = [ours] + [source.draw(32).data for _ in range(100)]
        assert source._pools.current() is pool
        source.close()
        os.write(go[1], b"x")
        open_connections = int(os.read(ready[0], 9))
        os.write(done[1], b"x")
        os.write(go[1], b"x")
        statuses = [os.waitpid(one, 0)[1] for one in (child, server_process)]
        blocks = mine + [theirs[start : start + 32] for start in range(0, 3200, 32)]
        print(len(set(blocks)), open_connections, *statuses)
    """
    assert run_python(script, f"unix://{socket_path}") == "201 1 0 0"


def test_a_killed_server_is_noticed_and_its_successor_is_used(
    run_python: RunPython, socket_path: Path
) -> None:
    script = """
        import os, signal, subprocess, sys
        from qr_sampler import EntropyUnavailableError
        from qr_sampler.entropy.breaker_settings import BreakerOptions
        from qr_sampler_grpc.direct.source import DirectSource

        SERVER = '''
        import sys, threading
        from qr_sampler_grpc.device import Device
        from qr_sampler_grpc.direct.server import serve_direct
        mark = sys.argv[2].encode()
        serve_direct(Device(lambda n: mark * n), sys.argv[1])
        print("ready", flush=True)
        threading.Event().wait()
        '''
        import textwrap

        def start(mark):
            command = [sys.executable, "-c", textwrap.dedent(SERVER), sys.argv[1], mark]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            process.stdout.readline()
            return process

        def kill(process):
            process.kill()
            process.communicate()

        source = DirectSource(sys.argv[1], breaker=BreakerOptions.checked(enabled=False))
        said = []
        process = start("a")
        said.append(source.draw(3).data.decode())
        kill(process)
        try:
            source.draw(3)
        except EntropyUnavailableError as error:
            said.append("no server listens" in error.reason)
        process = start("b")
        said.append(source.draw(3).data.decode())
        kill(process)
        process = start("c")
        said.append(source.draw(3).data.decode())
        source.close()
        kill(process)
        print(*said)
    """
    assert run_python(script, f"unix://{socket_path}") == "aaa True bbb ccc"


@pytest.mark.slow
@NEEDS_PROC
@pytest.mark.heavy
def test_failed_draws_leave_nothing_behind() -> None:
    if not LEAKS.exists():
        pytest.skip("the campaigns are not part of the source distribution")
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(LEAKS), "--draws", "2000"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@NEEDS_PROC
def test_servers_that_come_and_go_leave_nothing_behind(
    run_python: RunPython, socket_path: Path
) -> None:
    script = """
        import operator, os, sys, time
        from qr_sampler_grpc.device import Device
        from qr_sampler_grpc.direct.server import serve_direct
        from qr_sampler.entropy.breaker_settings import BreakerOptions
        from qr_sampler_grpc.direct.source import DirectSource

        def held():
            return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

        patient = BreakerOptions.checked(enabled=False)

        def cycle(times):
            for _ in range(times):
                with serve_direct(Device(os.urandom), sys.argv[1]) as server:
                    source = DirectSource(server.address, breaker=patient)
                    source.draw(16)
                source.close()

        cycle(5)
        before = held()
        cycle(200)
        # A thread that has been joined may still be on its way out of the kernel's list.
        deadline = time.monotonic() + 60
        while any(map(operator.gt, after := held(), before)) and time.monotonic() < deadline:
            time.sleep(0.01)
        print(before, after, not any(map(operator.gt, after, before)))
    """
    assert run_python(script, f"unix://{socket_path}").endswith("True")
