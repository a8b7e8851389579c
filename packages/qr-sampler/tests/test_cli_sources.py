# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler sources`` in a process of its own, with faulty packages on its path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler.entropy import EntropySource, SourceStatus
from qr_sampler.errors import ConfigError, EntropyUnavailableError
from qr_sampler_cli.main import app

GROUP = "qr_sampler.entropy_sources"
GOOD = """
    from qr_sampler.entropy import EntropySource, JitClass

    class Source(EntropySource):
        jit_class = JitClass.ATTESTED
        conditioning = "none"
        name = "good"

        def get_random_bytes(self, n):
            return bytes(n)
"""


class Packages:
    """Distributions that exist only on the path of the process under test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, distribution: str, entry_points: dict[str, str], **modules: str) -> None:
        info = self.directory / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", "utf-8"
        )
        points = "".join(f"{name} = {target}\n" for name, target in entry_points.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}", "utf-8")
        for name, code in modules.items():
            (self.directory / f"{name}.py").write_text(textwrap.dedent(code), "utf-8")

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "qr_sampler_cli", "sources", *arguments],
            env={**os.environ, "PYTHONPATH": str(self.directory), **variables},
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )

    def rows(self, *arguments: str, **variables: str) -> dict[str, list[dict[str, Any]]]:
        result = self.run("--json", *arguments, **variables)
        assert result.returncode == 0, result.stderr
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in json.loads(result.stdout):
            rows.setdefault(row["name"], []).append(row)
        return rows


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


def test_every_fault_is_a_row_and_the_rest_keeps_working(packages: Packages) -> None:
    packages.add("acme-good", {"good": "acme_good:Source"}, acme_good=GOOD)
    packages.add("acme-broken", {"broken": "acme_broken:Source"}, acme_broken="import no_such_lib")
    packages.add("acme-quits", {"quits": "acme_quits:Source"}, acme_quits="raise SystemExit(9)")
    packages.add("acme-other", {"other": "acme_other:thing"}, acme_other="thing = 1")
    packages.add("acme-one", {"contested": "acme_good:Source"})
    packages.add("acme-two", {"contested": "acme_good:Source"})
    rows = packages.rows()

    (good,) = rows["good"]
    assert good == {
        "name": "good",
        "kind": "",
        "distribution": "acme-good",
        "version": "1.0",
        "target": "acme_good:Source",
        "jit_class": "A",
        "jit_meaning": "attested",
        "conditioning": "none",
        "tested": "raw",
        "state": "available",
        "reason": "",
        "configured": False,
        "takes_over": False,
        "probed": False,
    }
    (broken,) = rows["broken"]
    assert broken["state"] == "broken"
    assert "No module named 'no_such_lib'" in broken["reason"]
    (quits,) = rows["quits"]
    assert (quits["state"], quits["reason"]) == ("broken", "SystemExit: 9")
    (other,) = rows["other"]
    assert other["state"] == "broken"
    assert "not a subclass of EntropySource" in other["reason"]
    assert [row["state"] for row in rows["contested"]] == ["conflict", "conflict"]
    assert {row["distribution"] for row in rows["contested"]} == {"acme-one", "acme-two"}
    assert "acme-one 1.0 and acme-two 1.0" in rows["contested"][0]["reason"]
    (system,) = rows["system"]
    assert (system["state"], system["distribution"]) == ("available", "qr-entropy-sources")


def test_table_shows_faults_without_a_traceback(packages: Packages) -> None:
    packages.add("acme-broken", {"broken": "acme_broken:Source"}, acme_broken="1 / 0")
    result = packages.run()
    assert result.returncode == 0
    assert "Traceback" not in result.stdout + result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.split()[:1] == ["broken"]]
    assert "acme-broken 1.0" in line
    assert "broken: ZeroDivisionError: division by zero" in result.stdout.splitlines()
    assert "\x1b" not in result.stdout


def listed(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["sources", *arguments])


def test_the_sources_of_the_settings_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "mock_uniform")
    monkeypatch.setenv("QR_FALLBACK_MODE", "system")
    lines = listed().stdout.splitlines()
    marked = [line.split()[:2] for line in lines if line[:1] in ("*", "+")]
    assert marked[:2] == [["*", "mock_uniform"], ["+", "system"]]
    rows = json.loads(listed("--json").stdout)
    assert [row["name"] for row in rows if row["configured"]] == ["mock_uniform"]
    assert [row["name"] for row in rows if row["takes_over"]] == ["system"]
    # A fallback to the source itself is none.
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")
    assert not any(row["takes_over"] for row in json.loads(listed("--json").stdout))


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (("nope",), {}, "unknown entropy source 'nope'; available: "),
        (("system", "nope", "--json"), {}, "unknown entropy source 'nope'"),
        ((), {"QR_ENTROPY_SOURCE_TYPE": "quantum_grcp"}, "QR_ENTROPY_SOURCE_TYPE='quantum_grcp'"),
        ((), {"QR_FALLBACK_MODE": "sytem"}, "QR_FALLBACK_MODE='sytem': unknown"),
    ],
)
def test_a_name_that_is_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    says: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = listed(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    # What is installed is shown all the same.
    assert ("system" in result.stdout) is (arguments != ("nope",))


@pytest.mark.parametrize("mode", ["error", "end_request"])
def test_a_fallback_that_is_no_source_is_none(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("QR_FALLBACK_MODE", mode)
    assert listed().exit_code == 0


def test_the_table_fits_a_narrow_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    table = listed().stdout.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 80
    # Nothing is cut or broken within a word.
    words = {word for line in table for word in line.split()}
    assert {"qr-entropy-sources", "timing_noise", "chacha20-csprng"} <= words


def test_one_source_can_be_asked_about() -> None:
    assert [row["name"] for row in json.loads(listed("system", "--json").stdout)] == ["system"]


def test_status_is_passive_and_probe_really_draws(packages: Packages) -> None:
    drawing = """
            with open("drawn", "a") as file:
                file.write(f"{n};")
            raise EntropyUnavailableError("dead", "the lamp is cold")
    """
    code = GOOD.replace("import EntropySource", "import EntropySource, EntropyUnavailableError")
    code = code.replace("qr_sampler.entropy", "qr_sampler").replace(
        "            return bytes(n)", drawing
    )
    packages.add("acme-dead", {"dead": "acme_dead:Source"}, acme_dead=code)
    (passive,) = packages.rows()["dead"]
    assert (passive["state"], passive["probed"]) == ("available", False)
    assert not (packages.directory / "drawn").exists()
    (probed,) = packages.rows("--probe")["dead"]
    assert (probed["state"], probed["probed"]) == ("unavailable", True)
    assert probed["reason"] == "the lamp is cold"
    assert (packages.directory / "drawn").read_text("utf-8") == "1;"


def test_malformed_setting_and_failing_status_are_rows(packages: Packages) -> None:
    packages.add(
        "acme-odd",
        {"unset": "acme_odd:Unset", "rude": "acme_odd:Rude"},
        acme_odd=GOOD
        + """
    class Unset(Source):
        @classmethod
        def from_environment(cls):
            from qr_sampler import ConfigError
            raise ConfigError("QR_ACME_PORT=x: not a port")

    class Rude(Source):
        def status(self):
            raise OSError("no such port")
""",
    )
    rows = packages.rows()
    (unset,) = rows["unset"]
    assert (unset["state"], unset["jit_class"]) == ("misconfigured", "A")
    assert unset["reason"] == "QR_ACME_PORT=x: not a port"
    (rude,) = rows["rude"]
    assert (rude["state"], rude["reason"]) == ("broken", "OSError: no such port")


def test_what_plugins_print_does_not_reach_standard_output(packages: Packages) -> None:
    chatty = GOOD + '\n    import os\n    print("hello")\n    os.write(1, b"native hello")\n'
    packages.add("acme-chatty", {"chatty": "acme_chatty:Source"}, acme_chatty=chatty)
    result = packages.run("--json")
    assert [row["name"] for row in json.loads(result.stdout)].count("chatty") == 1
    assert "hello" in result.stderr
    assert "native hello" in result.stderr


def test_escape_sequences_of_a_plugin_are_shown_not_sent(packages: Packages) -> None:
    packages.add(
        "acme-loud",
        {"loud": "acme_loud:Source"},
        acme_loud=r'raise ValueError("\x1b[2Jgone")',
    )
    result = packages.run()
    assert r"\x1b[2Jgone" in result.stdout
    assert "\x1b" not in result.stdout


def test_nothing_installed_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qr_sampler.components.registry.entry_points", lambda **_: ())
    result = CliRunner().invoke(app, ["sources"])
    assert result.exit_code == 0
    assert "pip install ./packages/qr-entropy-sources" in result.stdout


def test_table_in_process_lists_the_sources_of_this_environment() -> None:
    result = CliRunner().invoke(app, ["sources", "--probe"])
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("* system")]
    assert "qr-entropy-sources" in line
    assert "available" in line


class Refusing(EntropySource):
    """Fails in the way that its subclasses choose."""

    name = "refusing"

    def get_random_bytes(self, n: int) -> bytes:
        raise EntropyUnavailableError(self.name, "the lamp is cold")


class Misconfigured(Refusing):
    @classmethod
    def from_environment(cls) -> Misconfigured:
        raise ConfigError("QR_LAMP=x: not a lamp")


class Defective(Refusing):
    def status(self) -> SourceStatus:
        raise OSError("no such port")


def test_faults_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "contested": ("lamps:Refusing", "lamps:Defective"),
        "defective": ("lamps:Defective",),
        "gone": ("no_such_module:Source",),
        "misconfigured": ("lamps:Misconfigured",),
        "refusing": ("lamps:Refusing",),
    }
    entry_points = [
        EntryPoint(name=name, value=value, group=GROUP)
        for name, values in points.items()
        for value in values
    ]
    monkeypatch.setattr("qr_sampler.components.registry.entry_points", lambda **_: entry_points)
    monkeypatch.setattr("qr_sampler.ENTROPY_SOURCES._loaded", {})
    sources = types.ModuleType("lamps")
    vars(sources).update(Refusing=Refusing, Misconfigured=Misconfigured, Defective=Defective)
    monkeypatch.setitem(sys.modules, "lamps", sources)
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "refusing")
    monkeypatch.setenv("QR_FALLBACK_MODE", "error")
    result = CliRunner().invoke(app, ["sources", "--json", "--probe"])
    assert result.exit_code == 0
    rows = [(row["name"], row["state"], row["probed"]) for row in json.loads(result.stdout)]
    assert rows == [
        ("contested", "conflict", False),
        ("contested", "conflict", False),
        ("defective", "unavailable", True),
        ("gone", "broken", False),
        ("misconfigured", "misconfigured", False),
        ("refusing", "unavailable", True),
    ]
    passive = json.loads(CliRunner().invoke(app, ["sources", "--json"]).stdout)
    assert [row["state"] for row in passive if row["name"] == "defective"] == ["broken"]


def test_sources_with_names_of_their_own_are_rows(packages: Packages) -> None:
    packages.add("acme-good", {"good": "acme_good:Source"}, acme_good=GOOD)
    (packages.directory / "sources.toml").write_text(
        '[right]\nkind = "mock_uniform"\nseed = 3\n[bad]\nkind = "mock_uniform"\nsead = 3\n',
        "utf-8",
    )
    variables = {"QR_SOURCES": "left=good", "QR_SOURCES_FILE": "sources.toml"}
    rows = packages.rows(QR_ENTROPY_SOURCE_TYPE="left", QR_FALLBACK_MODE="right", **variables)
    (left,), (right,), (bad,) = rows["left"], rows["right"], rows["bad"]
    assert (left["kind"], left["state"], left["configured"]) == ("good", "available", True)
    assert (left["jit_class"], left["distribution"]) == ("A", "acme-good")
    assert (right["kind"], right["state"], right["takes_over"]) == (
        "mock_uniform",
        "available",
        True,
    )
    assert bad["state"] == "misconfigured"
    assert "bad: 'sead' is not a setting of the kind 'mock_uniform'" in bad["reason"]
    (only,) = packages.rows("left", "--probe", **variables).values()
    assert [(row["name"], row["probed"]) for row in only] == [("left", True)]

    result = packages.run("left", **variables)
    assert (result.returncode, result.stderr) == (0, "")
    assert "left: of the kind good, with settings of its own" in result.stdout


def test_a_malformed_declaration_is_an_error(packages: Packages) -> None:
    result = packages.run(QR_SOURCES="left=god")
    assert result.returncode == 2
    assert "QR_SOURCES: left: no kind of source is called 'god'" in result.stderr
