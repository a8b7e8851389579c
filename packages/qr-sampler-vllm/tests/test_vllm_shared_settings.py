# SPDX-License-Identifier: Apache-2.0
"""A front end and its engines read one set of settings, or a request is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qr_sampler import ConfigError, Settings
from qr_sampler.settings.env_file import env_file, pin_env_file
from qr_sampler_vllm.front_end import shared_settings
from qr_sampler_vllm.front_end.shared_settings import agreed_settings, share_env_file
from qr_sampler_vllm.status.run_directory import VARIABLE as RUN_DIRECTORY
from qr_sampler_vllm.status.run_directory import announce, announced

PROCESSES = """
import multiprocessing, os, sys
from qr_sampler import Settings
from qr_sampler_vllm.front_end.checks import prepare


def engine(elsewhere):
    os.chdir(elsewhere)
    prepare()
    print("engine", Settings.load().top_k, flush=True)


if __name__ == "__main__":
    prepare()
    child = multiprocessing.get_context("spawn").Process(target=engine, args=(sys.argv[1],))
    child.start()
    child.join()
    os.chdir(sys.argv[1])
    prepare()
    print("front end", Settings.load().top_k, flush=True)
    if len(sys.argv) == 2:
        import subprocess
        subprocess.run([sys.executable, __file__, sys.argv[1], "of its own"], check=True)
"""


@pytest.fixture(autouse=True)
def _of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory and a run directory of the test, and no file that stays pinned."""
    for name in [name for name in os.environ if name.startswith("QR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv(RUN_DIRECTORY, f"{os.getpid()}:{directory}")
    # Undone with the rest, whatever the code puts there.
    monkeypatch.setenv(shared_settings.VARIABLE, "")
    yield
    pin_env_file(None)


def settings_of_an_engine(**values: object) -> dict[str, object]:
    return Settings.load(**values).model_dump(mode="json")


def test_all_processes_read_the_file_of_the_front_end_and_other_programs_theirs(
    tmp_path: Path,
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder, top_k in ((here, 5), (elsewhere, 9)):
        folder.mkdir()
        (folder / ".env").write_text(f"QR_TOP_K={top_k}\n")
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    command = [sys.executable, str(script), str(elsewhere)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("QR_")}
    printed = subprocess.check_output(command, cwd=here, env=environment, text=True)
    assert printed.splitlines() == ["engine 5", "front end 5", "engine 9", "front end 9"]


def test_a_working_directory_that_is_gone_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    share_env_file()
    assert env_file() == Path(".env")
    assert Settings.load().top_k == 0


def test_a_request_is_refused_while_an_engine_has_read_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announce(settings_of_an_engine())
    assert agreed_settings() == Settings.load()
    monkeypatch.setenv("QR_TOP_K", "5")
    monkeypatch.setenv("QR_LEDGER_DIR", "/somewhere/private")
    with pytest.raises(ConfigError, match=r"\(QR_LEDGER_DIR, QR_TOP_K\)") as caught:
        agreed_settings()
    assert "private" not in str(caught.value)
    announce(settings_of_an_engine())
    assert agreed_settings().top_k == 5


def test_an_engine_that_has_ended_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from qr_sampler_vllm.status.run_directory import announce\n"
        "from qr_sampler import Settings\n"
        "import sys\n"
        "sys.modules['ray'] = sys  # As a process of the front end.\n"
        "announce(Settings.load().model_dump(mode='json'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(announced()) == 1
    monkeypatch.setenv("QR_TOP_K", "5")
    assert agreed_settings().top_k == 5
