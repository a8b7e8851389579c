# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler doctor`` for engines in the user's own process, with engines that are made up.

With real ones it is run in ``test_cli_engine.py``.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler_cli.doctor import choice as doctor_choice
from qr_sampler_cli.doctor.local import checks, findings
from qr_sampler_cli.doctor.local.examination import LocalExamination, examination
from qr_sampler_cli.doctor.local.request import LocalRequest
from qr_sampler_cli.engines import choice as choice_module
from qr_sampler_cli.main import app
from qr_sampler_local.engines import known_engine

LLAMA = LocalRequest(engine="llama-cpp")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("QR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A made-up llama-cpp-python, with an adapter."""
    module = types.ModuleType("llama_cpp")
    vars(module)["llama_supports_gpu_offload"] = lambda: False
    monkeypatch.setitem(sys.modules, "llama_cpp", module)
    adapter = types.ModuleType("qr_sampler_local.llama_cpp.engine")
    monkeypatch.setitem(sys.modules, "qr_sampler_local.llama_cpp.engine", adapter)
    return module


def levels(report: list[dict[str, str]], section: str) -> dict[str, str]:
    return {
        finding["check"]: finding["level"] for finding in report if finding["section"] == section
    }


def doctor(*arguments: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(app, ["doctor", *arguments, "--json"])
    assert result.stdout, result.stderr
    report: list[dict[str, str]] = json.loads(result.stdout)["findings"]
    return result.exit_code, report


def test_an_engine_that_is_missing_is_a_problem_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    status, report = doctor("llama-cpp")
    assert status == 1
    (missing,) = [finding for finding in report if finding["level"] == "problem"]
    assert (missing["section"], missing["check"]) == ("engine", "installed")
    assert missing["found"] == "llama-cpp-python lacks llama_cpp"
    assert "pip install './packages/qr-sampler[llama-cpp]'" in missing["remedy"]
    assert levels(report, "settings")["source"] == "ok"


def test_an_engine_in_order_has_no_problem(
    llama: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[dict[str, Any]] = []

    def answer(_command: Any, question: str, *, timeout_s: float) -> tuple[dict[str, Any], str]:
        asked.append(json.loads(question))
        seen = LocalExamination(devices="the processor", compile_cache="/cache", token="token 'a'")
        return {name: getattr(seen, name) for name in LocalExamination.__slots__}, ""

    monkeypatch.setattr(checks, "answer_of", answer)
    model = tmp_path / "m.gguf"
    model.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 26, 20) + b"rest")
    status, report = doctor("llama-cpp", f"--model={model}", "--token", "--engine-arg=n_ctx=64")
    assert status == 0, report
    assert asked == [
        {
            "engine": "llama-cpp",
            "model": str(model),
            "arguments": {"n_ctx": 64},
            "token": True,
        }
    ]
    said = {(finding["section"], finding["check"]): finding["found"] for finding in report}
    assert said["engine", "import"] == "llama-cpp-python and its adapter import"
    assert said["accelerators", "device"] == "the processor"
    assert said["model", "files"].startswith("GGUF version 3, 26 tensors, 20 entries")
    assert said["token", "generated"] == "in 0.0 s: token 'a'"


def test_a_process_that_ends_early_is_told(
    llama: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "answer_of", lambda *_, **__: (None, "it ended with status 7: oh"))
    status, report = doctor("llama-cpp")
    assert status == 1
    (finding,) = [each for each in report if each["level"] == "problem"]
    assert finding["found"] == "llama-cpp-python does not import: it ended with status 7: oh"


def test_the_examination_in_this_process(llama: types.ModuleType) -> None:
    seen = examination(LLAMA)
    assert seen.import_error == ""
    assert (seen.devices, seen.accelerated) == ("built without support for graphics units", False)
    assert (seen.token, seen.token_error) == ("", "")


def test_the_examination_passes_on_what_is_raised(
    llama: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    del vars(llama)["llama_supports_gpu_offload"]
    asked = examination(LocalRequest(engine="llama-cpp", model="/no/such.gguf", token=True))
    assert asked.devices_error.startswith("AttributeError: ")
    assert asked.token_error.startswith("ConfigError: --model /no/such.gguf: llama.cpp needs a")
    monkeypatch.setitem(sys.modules, "qr_sampler_local.llama_cpp.engine", None)
    assert examination(LLAMA).import_error.startswith("ModuleNotFoundError: ")


@pytest.mark.parametrize(
    ("request_", "seen", "level", "text"),
    [
        (LLAMA, LocalExamination(), "skipped", "none: that loads the model and draws"),
        ({"token": True}, LocalExamination(failure="x"), "skipped", "does not import"),
        ({"token": True}, LocalExamination(token_error="wrong"), "problem", "wrong"),
        ({"token": True}, LocalExamination(token="t", seconds=2), "ok", "in 2.0 s: t"),
    ],
)
def test_the_token_is_reported(
    request_: Any, seen: LocalExamination, level: str, text: str
) -> None:
    request = LLAMA if request_ is LLAMA else LocalRequest(engine="mlx", model="m", **request_)
    (finding,) = findings.token_findings(request, seen)
    assert finding.level == level
    assert text in finding.found


def test_a_token_needs_a_model() -> None:
    result = CliRunner().invoke(app, ["doctor", "mlx", "--token"])
    assert result.exit_code == 2
    assert "--token needs a model: name it with --model" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "level", "text"),
    [
        ("m.gguf", b"GGUF", "problem", "ends after 4 bytes"),
        ("m.gguf", b"nothing of the kind", "problem", "is no .gguf file"),
    ],
)
def test_a_gguf_file_is_read(
    tmp_path: Path, name: str, content: bytes, level: str, text: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    request = LocalRequest(engine="llama-cpp", model=str(file))
    (finding,) = findings.model_findings(request, None)
    assert finding.level == level
    assert text in finding.found


def test_models_of_the_other_engines_are_directories_or_names(tmp_path: Path) -> None:
    def look(model: str | None) -> list[tuple[str, str]]:
        found = findings.model_findings(LocalRequest(engine="mlx", model=model), None)
        return [(finding.check, finding.level) for finding in found]

    assert look(None) == [("files", "skipped")]
    assert look("owner/name") == [("files", "skipped")]
    assert look(str(tmp_path / "nowhere")) == [("files", "problem")]
    (tmp_path / "config.json").write_text('{"vocab_size": 9, "eos_token_id": 1}', "utf-8")
    assert look(str(tmp_path)) == [
        ("vocabulary", "ok"),
        ("tokenizer", "problem"),
        ("end of text", "ok"),
    ]


@pytest.mark.parametrize(("cache", "level"), [("", "warning"), ("/somewhere", "ok"), (None, None)])
def test_a_place_for_compiled_loops_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, cache: str | None, level: str | None
) -> None:
    monkeypatch.setattr(findings, "find_spec", lambda _: object())
    seen = LocalExamination(devices="d", compile_cache=cache)
    found = {each.check: each.level for each in findings.accelerator_findings(LLAMA, seen)}
    assert found["selection"] == "ok"
    assert found.get("compile cache") == level


@pytest.mark.parametrize("missing", ["numba", "qr_sampler_accel"])
def test_slow_selection_is_a_warning(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(findings, "find_spec", lambda name: None if name == missing else object())
    seen = LocalExamination(devices_error="no driver")
    device, selection = findings.accelerator_findings(LLAMA, seen)
    assert (device.level, device.found) == ("skipped", "it could not be asked: no driver")
    assert selection.level == "warning"
    assert "[fast]" in selection.remedy


@pytest.mark.parametrize(("version", "level"), [("5.18.0", "warning"), ("9.0", "ok")])
def test_versions_are_compared_with_what_is_tested(
    monkeypatch: pytest.MonkeyPatch, version: str, level: str
) -> None:
    for name in known_engine("transformers").modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(findings, "version", lambda _: version)
    found = list(findings.installed_findings(LocalRequest(engine="transformers")))
    of_transformers = [each for each in found if each.found.startswith("transformers ")]
    assert [each.level for each in of_transformers] == [level]


@pytest.fixture
def whichever(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says which engines are installed."""

    def say(*names: str) -> None:
        engines = tuple(known_engine(name) for name in names)
        for module in (choice_module, doctor_choice):
            monkeypatch.setattr(module, "installed_engines", lambda: engines)
            monkeypatch.setattr(module.plugin, "absence", lambda: "vLLM is not installed")

    return say


def test_without_a_name_the_engine_that_generate_would_take_is_examined(
    whichever: Callable[..., None], llama: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    whichever("llama-cpp")
    monkeypatch.setattr(checks, "answer_of", lambda *_, **__: ({"devices": "d"}, ""))
    status, report = doctor("--model=m.gguf")
    assert status == 1  # There is no such file.
    assert [each["found"] for each in report[:2]] == [
        f"llama-cpp-python {known_engine('llama-cpp').version}".strip() + "; vLLM is not installed",
        "llama-cpp-python, which reads .gguf files",
    ]
    assert levels(report, "engine")["import"] == "ok"
    assert levels(report, "model") == {"files": "problem"}


def test_without_any_engine_the_report_says_what_to_install(whichever: Callable[..., None]) -> None:
    whichever()
    status, report = doctor()
    assert status == 1
    assert [each["level"] for each in report] == ["ok", "problem"]
    assert "qr-sampler[transformers]" in report[1]["found"]
