# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler sources --test`` on components of other distributions, good and bad ones."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from qr_sampler import EntropySource
from qr_sampler.entropy import SourceLimits
from qr_sampler.settings import Settings
from qr_sampler_cli.component_test import child, process, trial
from qr_sampler_cli.component_test.plan import CONTRACT_BYTES, CONTRACT_REQUESTS, plan_of
from qr_sampler_cli.doctor.deployment import settings_findings
from qr_sampler_cli.main import app

PAGE: Final = Path(__file__).resolve().parents[3] / "docs" / "plugins.md"

SOURCES: Final = "qr_sampler.entropy_sources"
AMPLIFIERS: Final = "qr_sampler.signal_amplifiers"

SOUND: Final = """
    import os
    from qr_sampler import EntropySource, JitClass
    from qr_sampler.entropy import SourceLimits

    class Source(EntropySource):
        jit_class = JitClass.REMOTE
        conditioning = "none"
        name = "{name}"
        limits = SourceLimits(max_requests_per_minute=600_000, max_bytes_per_day=300_000)

        def get_random_bytes(self, n):
            if n < 0:
                raise ValueError("n must not be negative")
            with open(os.environ["COUNTED"], "a") as file:
                file.write(f"{{n}}\\n")
            return os.urandom(n)
"""

CACHED: Final = """
    import functools, os
    from qr_sampler import EntropySource

    class Source(EntropySource):
        name = "{name}"

        def get_random_bytes(self, n):
            if n < 0:
                raise ValueError("n must not be negative")
            return answer(n)

    @functools.cache
    def answer(n):
        # Twelve zeros in a row: no health test lets that pass.
        return (bytes(12) + os.urandom(max(n - 12, 0)))[:n]
"""

SILENT: Final = """
    import threading
    from qr_sampler import EntropySource

    class Source(EntropySource):
        name = "{name}"

        def get_random_bytes(self, n):
            threading.Event().wait()
"""

ABSENT: Final = """
    from qr_sampler import EntropySource, EntropyUnavailableError

    class Source(EntropySource):
        name = "{name}"

        def get_random_bytes(self, n):
            raise EntropyUnavailableError(self.name, "no robot on /dev/robot; plug it in")
"""

LASTING: Final = """
    import os
    from qr_sampler import EntropySource

    class Source(EntropySource):
        name = "{name}"
        calls = 0

        def get_random_bytes(self, n):
            if n < 0:
                raise ValueError("n must not be negative")
            self.calls += 1
            if self.calls == 16:
                END
            return os.urandom(n)
"""
"""Works for a while."""

BREAKS: Final = LASTING.replace("END", "raise KeyboardInterrupt")
LATE: Final = LASTING.replace("END", "os._exit(0)")

EARLY: Final = """
    from qr_sampler import EntropySource, EntropyUnavailableError

    class Source(EntropySource):
        name = "{name}"

        def __init__(self):
            raise EntropyUnavailableError(self.name, "the robot sleeps")

        def get_random_bytes(self, n):
            return bytes(n)
"""

NO_LIMIT: Final = """
    import os
    from qr_sampler import EntropySource
    from qr_sampler.entropy import SourceLimits

    class Source(EntropySource):
        name = "{name}"
        limits = SourceLimits(max_requests_per_minute=0)

        def get_random_bytes(self, n):
            return os.urandom(n)
"""

SCARCE: Final = NO_LIMIT.replace("max_requests_per_minute=0", "max_bytes_per_day=1_000")

SECRETIVE: Final = """
    import os
    from qr_sampler import EntropySource, EntropyUnavailableError

    class Source(EntropySource):
        name = "{name}"
        secrets = ("hunter2",)

        @property
        def recorded_settings(self):
            return {{"key": "hunter2"}}

        def get_random_bytes(self, n):
            if n < 0:
                raise ValueError("n must not be negative")
            if n == 0:
                raise EntropyUnavailableError(self.name, "refused with hunter2")
            return os.urandom(n)
"""

BIASED: Final = """
    import numpy as np
    from qr_sampler import AmplificationResult, SignalAmplifier

    class Source(SignalAmplifier):
        def amplify(self, blocks, counts=None):
            u = (blocks[:, 0] / 512.0) + 0.25
            return AmplificationResult(u, u)
"""


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that has a line for each request to the sound source."""
    path = tmp_path / "counted"
    path.touch()
    monkeypatch.setenv("COUNTED", str(path))
    return path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a distribution that exists only on the paths of this test and its children."""
    monkeypatch.syspath_prepend(tmp_path)
    paths = (str(tmp_path), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))

    def add(name: str, code: str, group: str = SOURCES) -> None:
        info = tmp_path / f"acme_{name}-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata, "utf-8")
        point = f"[{group}]\n{name} = acme_{name}:Source\n"
        (info / "entry_points.txt").write_text(point, "utf-8")
        module = textwrap.dedent(code).replace("{name}", name)
        module = module.replace("{{", "{").replace("}}", "}")
        (tmp_path / f"acme_{name}.py").write_text(module, "utf-8")

    return add


def verdict_on(name: str, *options: str) -> Any:
    return CliRunner().invoke(app, ["sources", "--test", name, *options])


@pytest.mark.heavy
def test_a_sound_source_is_usable_and_its_quota_is_respected(install: Any, counted: Path) -> None:
    if PAGE.exists():
        told = re.findall(r"(?<=\n)qr-sampler (sources --test .*)", PAGE.read_text("utf-8"))
        assert told == ["sources --test dice"]
    install("dice", SOUND)
    result = verdict_on("dice")
    assert result.exit_code == 0, result.output
    assert "dice: from acme-dice 1.0, just-in-time class C, conditioning none" in result.stderr
    assert "draws at most 24,296 bytes in 168 requests" in result.stderr
    assert "leaves out latency 10240: 30,720 bytes are too many of 300,000" in result.stderr
    assert "checks passed, 0 failed" in result.stdout
    assert "health    ok: raw tested" in result.stdout
    assert "latency   1,024 bytes" in result.stdout
    assert "verdict   usable: choose it with QR_ENTROPY_SOURCE_TYPE=dice" in result.stdout
    assert "not tested: latency 10240" in result.stdout
    sizes = [int(line) for line in counted.read_text().splitlines()]
    assert sum(sizes) <= 24_296
    # The contract has most of them, so that a smaller allowance would not do.
    assert CONTRACT_REQUESTS / 2 < len(sizes) <= 168
    assert sum(sizes) > CONTRACT_BYTES / 2


@pytest.mark.heavy
def test_a_faulty_source_is_told_what_to_repair(install: Any) -> None:
    install("stale", CACHED)
    result = verdict_on("stale", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["verdict"] == "faulty"
    failed = [name for name, (outcome, _) in found["clauses"].items() if outcome == "failed"]
    assert sorted(failed) == [
        "test_nothing_is_delivered_twice",
        "test_output_is_not_grossly_defective",
    ]
    assert found["health"]["health"] == "failed"
    assert [fault.partition(":")[0] for fault in found["faults"]] == [*failed, "health"]


@pytest.mark.heavy
def test_a_source_that_hangs_is_faulty(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install("mute", SILENT)
    monkeypatch.setattr(trial, "STEP_S", 20.0)
    run_step = trial.run_step

    def impatient(step: str, subject: Any, timeout_s: float) -> Any:
        return run_step(step, subject, 3.0 if step == "probe" else timeout_s)

    monkeypatch.setattr(trial, "run_step", impatient)
    result = verdict_on("mute")
    assert result.exit_code == 1
    assert "fault     a first draw of 8 bytes: no end after 3 s" in result.stdout
    assert "verdict   faulty: repair what the faults name" in result.stdout


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "code", "status", "says"),
    [
        ("gone", ABSENT, 2, "not tested: no robot on /dev/robot; plug it in; make it available"),
        ("torn", "raise OSError('no driver')", 2, "no driver"),
        ("quits", "import os\nos._exit(3)", 1, "construction: the process ended with status 3"),
        ("leaves", "import os\nos._exit(0)", 1, "construction: the process ended itself"),
        ("late", LATE, 1, "test_nothing_is_delivered_twice: the process ended itself"),
        ("breaks", BREAKS, 1, "test_nothing_is_delivered_twice: pytest was ended with status 2"),
        ("early", EARLY, 2, "not tested: the robot sleeps"),
        ("none", NO_LIMIT, 1, "limits: max_requests_per_minute=0; use a number above 0"),
        ("scarce", SCARCE, 2, "not tested: its quotas leave out the contract"),
    ],
)
def test_what_cannot_be_tested_is_told_why(
    install: Any, name: str, code: str, status: int, says: str
) -> None:
    install(name, code)
    result = verdict_on(name)
    assert (result.exit_code, says in result.output) == (status, True), result.output
    if name == "scarce":
        assert "draws at most 8 bytes in 1 requests" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.heavy
def test_an_amplifier_is_tested_too(install: Any) -> None:
    install("narrow", BIASED, AMPLIFIERS)
    result = verdict_on("narrow")
    assert result.exit_code == 1
    (fault,) = [line for line in result.stdout.splitlines() if line.startswith("fault")]
    assert fault.startswith("fault     test_u_of_unbiased_bytes_is_uniform: ")


@pytest.mark.heavy
def test_no_secret_is_told(install: Any) -> None:
    install("keyed", SECRETIVE)
    result = verdict_on("keyed", "--json")
    assert result.exit_code == 1, result.output
    assert "refused with ***" in result.stdout
    assert "recorded_settings hold a secret" in result.stdout
    assert "hunter2" not in result.output


@pytest.mark.heavy
def test_what_a_process_prints_starts_and_leaves_is_bounded(tmp_path: Path) -> None:
    program = """
        import os, subprocess, sys, tempfile, time
        left = subprocess.Popen(["sleep", "300"])
        open(os.environ["TOLD"], "w").write(f"{left.pid} {tempfile.mkdtemp()}")
        line = b"x" * 65535 + b"\\n"
        for _ in range(500):
            os.write(2, line)
        os.write(1, b"the end\\n")
        os._exit(4)
    """
    told = tmp_path / "told"
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with tempfile.TemporaryDirectory() as folder, (tmp_path / "q").open("w+b") as asked:
        environment = {**process._environment(folder), "TOLD": str(told)}
        ended, last = process._ended(command, asked, environment, 60.0)
        pid, made = told.read_text().split()
        assert made.startswith(folder)
    assert (ended, last) == ("the process ended with status 4", "the end")
    assert _is_gone(int(pid))
    lines = tmp_path / "lines"
    lines.write_text('{"a": 1}\n{"b": ')
    assert list(process._told(lines)) == [{"a": 1}]


def _is_gone(pid: int) -> bool:
    """Returns whether a process ends, as one that was killed soon does."""
    for _ in range(600):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_an_unknown_name_is_refused() -> None:
    result = verdict_on("nope")
    assert result.exit_code == 2
    assert "unknown component 'nope'; available: " in result.stderr
    assert CliRunner().invoke(app, ["sources", "system", "--test", "system"]).exit_code == 2


TUNED: Final = """
    from pydantic_settings import SettingsConfigDict
    from qr_sampler import EntropySource
    from qr_sampler.settings import EnvironmentSettings

    class Tuning(EnvironmentSettings):
        model_config = SettingsConfigDict(env_prefix="QR_TUNED_")
        gain: float = 1.5

    class Source(EntropySource):
        name = "{name}"
        settings_model = Tuning

        def get_random_bytes(self, n):
            return bytes(n)
"""


def test_settings_of_other_projects_are_shown(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("tuned", TUNED)
    install("untuned", "raise OSError('no driver')")
    result = CliRunner().invoke(app, ["settings"])
    assert result.exit_code == 0
    assert "| `QR_TUNED_GAIN` | `1.5` | number |" in result.stdout
    assert "For `QR_ENTROPY_SOURCE_TYPE=tuned`.\nPackage: `acme-tuned`." in result.stdout
    assert "not shown: untuned: " in result.stderr
    monkeypatch.setenv("QR_TUNED_GAIN", "2.5")
    said = [
        finding.found for finding in settings_findings(Settings.load(entropy_source_type="tuned"))
    ]
    assert "QR_TUNED_GAIN=2.5" in said
    monkeypatch.setenv("QR_TUNED_GAIN", "high")
    found = settings_findings(Settings.load(entropy_source_type="tuned"))
    assert [each.level for each in found if "QR_TUNED_GAIN" in each.found] == ["problem"]


def test_a_plan_spends_no_more_than_a_tenth_of_a_day() -> None:
    unlimited = plan_of(SourceLimits())
    assert len(unlimited.running) == 5
    assert sum(stage.wait_s for stage in unlimited.stages) == 0.0
    for daily in (1_000, 15_000, 250_000, 10**7):
        running = plan_of(SourceLimits(max_bytes_per_day=daily)).running
        assert sum(stage.count_bytes for stage in running) <= daily / 10
    slow = plan_of(SourceLimits(max_requests_per_minute=1.0))
    assert "160 requests would take" in slow.stages[0].left_out
    assert [stage.name for stage in slow.running] == [
        "health",
        "latency 64",
        "latency 1024",
        "latency 10240",
    ]
    assert slow.skipped_clauses == (
        "test_threads_share_no_bytes",
        "test_nothing_is_delivered_twice",
    )
    small = plan_of(SourceLimits(max_bytes_per_request=1_000))
    assert small.stages[0].requests == CONTRACT_REQUESTS + CONTRACT_BYTES // 1_000
    assert small.stages[-1].requests == 3 * math.ceil(10_240 / 1_000)


def told_by(step: str, name: str, tmp_path: Path, **more: Any) -> list[dict[str, Any]]:
    file = tmp_path / step
    question = {"kind": "source", "name": name, "stages": [], "skipped_clauses": [], **more}
    child.main(step, str(file), json.dumps(question))
    return [json.loads(line) for line in io.StringIO(file.read_text("utf-8"))]


def test_steps_tell_what_they_find(tmp_path: Path) -> None:
    about, done = told_by("describe", "system", tmp_path)
    assert done == {"done": True}
    assert (about["available"], about["jit_class"], about["has_pytest"]) == (True, "P", True)
    assert told_by("probe", "system", tmp_path) == [{"probed": True}, done]
    stages = ["health", "latency 64"]
    told = told_by("measure", "system", tmp_path, stages=stages)
    assert told[1] == {"health": "ok", "tested": "output", "alarm": "", "untested": ""}
    assert 0.0 < told[3]["median_ms"] <= told[3]["slowest_ms"]
    assert "refused" in told_by("describe", "nope", tmp_path / "..")[0]


def test_health_is_tested_as_the_deployment_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FourFaces(EntropySource):
        """Two bits of min-entropy in a byte, which it does not say."""

        name = "four_faces"

        def get_random_bytes(self, n: int) -> bytes:
            return os.urandom(n).translate(bytes((0x33, 0xCC, 0x55, 0xAA)) * 64)

    monkeypatch.setattr(child, "create_source", lambda _: FourFaces())
    health = {}
    for given in ({}, {"QR_HEALTH_MIN_ENTROPY": "1.5"}, {"QR_HEALTH": "false"}):
        with monkeypatch.context() as environment:
            for name, value in given.items():
                environment.setenv(name, value)
            told = told_by("measure", "four_faces", tmp_path, stages=["health"])
        health[str(given)] = told[-2]["health"], told[-2]["untested"]
    assert list(health.values()) == [
        ("failed", ""),
        ("ok", ""),
        ("untested", "switched off by QR_HEALTH=false"),
    ]
