# SPDX-License-Identifier: Apache-2.0
"""The commands of ``docs/quality.md``, executed with fewer bytes, and what it says of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.settings import Settings
from qr_sampler.testing import ToyHost, play_script
from qr_sampler_cli.main import app
from qr_sampler_cli.quality.byte_tests import byte_tests
from qr_sampler_cli.quality.programs.known import PROGRAMS
from qr_sampler_cli.quality.restarts import restart_tests

PAGE = Path(__file__).resolve().parents[4] / "docs" / "quality.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")

FEWER = {
    "health run": ("--draws=3",),
    "baseline --source": ("--blocks=300", "--block-bytes=64"),
    "quality system": ("--bytes=20000", "--restarts=2", "--programs="),
    "quality raw.bin": ("--programs=",),
}
"""By the beginning of a command, options that make it short; of one given twice the last counts."""


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = SamplingSession(
        EngineFacts(engine="toy 1.0", model="none"),
        Settings.load(sample_count=64, ledger_dir=tmp_path / "ledgers"),
    )
    play_script(ToyHost(session, seed=1), seed=1, steps=20)
    told = commands()
    assert len(told) == 6
    for command in told:
        program, *arguments = shlex.split(command)
        assert program == "qr-sampler"
        if "--picture" in arguments and not has_matplotlib():
            continue
        fewer = next((more for start, more in FEWER.items() if start in command), ())
        result = CliRunner().invoke(app, [*arguments, *fewer])
        # Good bytes are called bad in one of a thousand runs.
        allowed = (0, 1) if arguments[0] in ("quality", "baseline") else (0,)
        assert result.exit_code in allowed, result.output
    assert Path("raw.bin").stat().st_size == 20_000


def has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def test_every_test_and_every_program_is_in_a_table() -> None:
    import numpy as np

    from qr_sampler_cli.quality.ent_figures import ent_figures

    data = np.random.default_rng(1).integers(0, 256, 4_096, dtype=np.uint8)
    names = [test.name for test in byte_tests(data, ent_figures(data))]
    names += [test.name for test in restart_tests([bytes(64), bytes(range(64))])]
    cells = {
        name
        for row in re.findall(r"^\| ([^|]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
        for name in row.replace("`", "").split(", ")
    }
    assert set(names) <= cells
    assert {program.executable for program in PROGRAMS} <= {cell.split(" ")[0] for cell in cells}


def test_links_of_the_page_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE.read_text("utf-8"))
    assert len(targets) >= 3
    for target in targets:
        assert (PAGE.parent / target).exists(), target
