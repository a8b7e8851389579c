# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler generate`` around a stand-in for vLLM.

These tests cover what the command itself does: its arguments, the environment of the engine, the
comparison of records with tokens, its output and its exit status. That real vLLM behaves as the
stand-in does is shown by ``test_cli_engine.py``, where vLLM is installed.
"""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qr_sampler_cli.main import app
from qr_sampler_cli.terminal.consoles import progress_console

Line = dict[str, Any]
WORDS = {11: "one", 12: "\x1b[2Jtwo", 13: "\ufffd", 14: "four"}
TOKEN_IDS = (11, 12, 13)


def token_line(key: str, position: int, **changes: Any) -> Line:
    return {
        "kind": "token",
        "request_key": key,
        "position": position,
        "token_id": TOKEN_IDS[position],
        "u": 0.5,
        "temperature": 0.7,
        "entropy_nats": 1.25,
        "rank": 3,
        "probability": 0.125,
        "source": "system",
        "fallback": False,
        "t_request_ns": 1_000_000,
        "t_received_ns": 2_500_000,
        **changes,
    }


class StandIn:
    """What the stand-in saw, and what it is to do wrong."""

    def __init__(self) -> None:
        self.engine_arguments: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        self.parameters: list[Any] = []
        self.prompts: list[str] = []
        self.calls: list[str] = []
        self.spoil: Callable[[list[Line]], list[Line]] = lambda lines: lines
        self.on_start: Callable[[], None] = lambda: None
        self.on_generate: Callable[[], None] = lambda: None

    def modules(self) -> dict[str, types.ModuleType]:
        stand_in = self

        class SamplingParams:
            def __init__(self, **values: Any) -> None:
                self.values = values

        class Tokenizer:
            """Every character is a token, and those of :data:`WORDS` are words."""

            def encode(self, text: str) -> list[int]:
                return [ord(character) for character in text]

            def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
                return "".join(WORDS.get(token_id, chr(token_id)) for token_id in ids)

            def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
                return [f"<{token_id}>" for token_id in ids]

        class LLM:
            def __init__(self, **arguments: Any) -> None:
                print("a banner of the engine")
                os.write(1, b"a native banner\n")
                stand_in.prompts, stand_in.parameters = [], []
                stand_in.on_start()
                stand_in.engine_arguments = arguments
                stand_in.environment = dict(os.environ)
                self.llm_engine = LLMEngine()

            def get_tokenizer(self) -> Tokenizer:
                return Tokenizer()

        class LLMEngine:
            def __init__(self) -> None:
                self.engine_core = types.SimpleNamespace(
                    shutdown=lambda: stand_in.calls.append("shutdown")
                )
                self.running: dict[str, int] = {}

            def add_request(
                self, request_id: str, prompt: dict[str, list[int]], params: SamplingParams
            ) -> None:
                self.running[request_id] = 0
                stand_in.prompts.append("".join(map(chr, prompt["prompt_token_ids"])))
                stand_in.parameters.append(params)

            def has_unfinished_requests(self) -> bool:
                return bool(self.running)

            def abort_request(self, request_ids: list[str]) -> None:
                stand_in.calls.append("abort")
                self.running.clear()

            def step(self) -> list[Any]:
                if not any(self.running.values()):
                    keys = [each.values["extra_args"]["qr_request_key"] for each in params()]
                    lines = [token_line(key, n) for key in keys for n in range(len(TOKEN_IDS))]
                    stand_in.write(stand_in.spoil(lines))
                stand_in.on_generate()
                return [self.output(name) for name in list(self.running)]

            def output(self, name: str) -> Any:
                token_id = TOKEN_IDS[self.running[name]]
                self.running[name] += 1
                is_over = self.running[name] == len(TOKEN_IDS)
                if is_over:
                    del self.running[name]
                reason = "length" if is_over else None
                output = types.SimpleNamespace(token_ids=[token_id], finish_reason=reason)
                return types.SimpleNamespace(request_id=name, outputs=[output])

        def params() -> list[Any]:
            return stand_in.parameters

        vllm, platforms = types.ModuleType("vllm"), types.ModuleType("vllm.platforms")
        plugin = types.ModuleType("qr_sampler_vllm")
        sampling = types.ModuleType("vllm.sampling_params")
        vars(sampling).update(RequestOutputKind=types.SimpleNamespace(DELTA="delta"))
        vars(vllm).update(
            LLM=LLM, SamplingParams=SamplingParams, platforms=platforms, __version__="1.2.3"
        )
        vars(platforms).update(
            current_platform=types.SimpleNamespace(is_cpu=lambda: True, device_type="cpu")
        )
        vars(plugin).update(
            flush_records=lambda: stand_in.calls.append("flush"),
            end_records=lambda: stand_in.calls.append("end"),
        )
        return {
            "vllm": vllm,
            "vllm.platforms": platforms,
            "vllm.sampling_params": sampling,
            "qr_sampler_vllm": plugin,
        }

    @staticmethod
    def write(lines: list[Line]) -> None:
        path = Path(os.environ["QR_LEDGER_DIR"]) / "engine.jsonl"
        path.parent.mkdir(exist_ok=True)
        written = [{"kind": "genesis", "run_id": "r"}, *lines]
        path.write_text(
            "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in written), "utf-8"
        )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    point = types.SimpleNamespace(module="qr_sampler_vllm.processor")
    monkeypatch.setattr("qr_sampler_cli.engines.plugin.entry_points", lambda **_: (point,))
    for name in [name for name in os.environ if name.startswith(("QR_", "VLLM_", "HF_"))]:
        monkeypatch.delenv(name)
    return stand_in


def generate(*arguments: str, standard_input: str | None = None) -> Result:
    return CliRunner().invoke(app, ["generate", "--model=m", *arguments], input=standard_input)


def test_text_table_and_summary_line(stand_in: StandIn) -> None:
    result = generate("Once")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "Onceone\\x1b[2Jtwo\ufffd"
    header = lines[2].split()
    assert header[:5] == ["#", "token", "id", "u", "rank"]
    assert lines[3].split() == [
        "0", "'one'", "11", "0.500000", "3", "0.125", "0.7", "1.250", "system", "no",
    ]  # fmt: skip
    assert lines[4].split()[1] == r"'\x1b[2Jtwo'"
    assert lines[5].split()[1] == "'<13>'"
    assert lines[-1] == (
        "3 tokens | 100.0 % from system | 0.0 % fallback | mean u 0.5000 | median draw 1.500 ms"
    )
    assert "\x1b" not in result.stdout
    assert stand_in.calls == ["flush", "flush", "shutdown", "end"]


def test_options_reach_the_request_and_the_environment(stand_in: StandIn) -> None:
    result = generate(
        "p", "--max-tokens=9", "--source=mock_uniform", "--fallback=error", "--temperature=1.5",
        "--top-k=5", "--top-p=0.9", "--min-p=0.1", "--amplifier=zscore_mean", "--sample-count=64",
        "--set=qr_trial=t1", "--set", "qr_truncate_first=true",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert stand_in.environment["QR_ENTROPY_SOURCE_TYPE"] == "mock_uniform"
    assert stand_in.environment["QR_FALLBACK_MODE"] == "error"
    values = stand_in.parameters[0].values
    key = values["extra_args"].pop("qr_request_key")
    assert key.startswith("cli-")
    assert values == {
        "output_kind": "delta",
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "max_tokens": 9,
        "extra_args": {
            "qr_fixed_temperature": "1.5",
            "qr_top_k": "5",
            "qr_top_p": "0.9",
            "qr_min_p": "0.1",
            "qr_signal_amplifier_type": "zscore_mean",
            "qr_sample_count": "64",
            "qr_trial": "t1",
            "qr_truncate_first": "true",
        },
    }


def test_strategy_and_its_own_options(stand_in: StandIn) -> None:
    assert generate("p", "--strategy=edt", "--set=qr_edt_exponent=0.7").exit_code == 0
    options = stand_in.parameters[0].values["extra_args"]
    assert options["qr_temperature_strategy"] == "edt"
    assert options["qr_edt_exponent"] == "0.7"


def test_engine_runs_in_this_process_and_quietly(stand_in: StandIn, tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    before = dict(os.environ)
    result = CliRunner().invoke(app, ["generate", "p", f"--model={tmp_path}"])
    assert result.exit_code == 0, result.stderr
    assert stand_in.environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert stand_in.environment["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    assert stand_in.environment["HF_HUB_OFFLINE"] == "1"
    assert dict(os.environ) == before
    assert stand_in.engine_arguments == {
        "model": str(tmp_path),
        "use_tqdm_on_load": False,
        "dtype": "float32",
        "enforce_eager": True,
        "distributed_executor_backend": "uni",
    }


def test_choices_of_the_user_win(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    result = generate(
        "p", "--engine-arg=dtype=bfloat16", "--engine-arg=max_model_len=256",
        '--engine-arg=speculative_config={"method": "ngram"}', "--verbose",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert stand_in.environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"
    assert stand_in.environment["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert stand_in.environment["VLLM_LOGGING_LEVEL"] == "INFO"
    assert stand_in.engine_arguments == {
        "model": "m",
        "use_tqdm_on_load": False,
        "dtype": "bfloat16",
        "enforce_eager": True,
        "max_model_len": 256,
        "speculative_config": {"method": "ngram"},
    }


def test_accelerator_gets_the_defaults_of_vllm(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = types.SimpleNamespace(is_cpu=lambda: False, device_type="cuda")
    monkeypatch.setattr(sys.modules["vllm.platforms"], "current_platform", platform)
    assert generate("p").exit_code == 0
    assert stand_in.engine_arguments == {"model": "m", "use_tqdm_on_load": False}


def test_prompts_come_from_arguments_and_file(stand_in: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text("second\n\n  \nthird\n", "utf-8-sig")
    result = generate("first", f"--prompt-file={file}", "--no-table")
    assert result.exit_code == 0, result.stderr
    assert stand_in.prompts == ["first", "second", "third"]
    assert result.stdout.splitlines()[0:5:2] == [
        f"{prompt}one\\x1b[2Jtwo\ufffd" for prompt in ("first", "second", "third")
    ]
    assert "9 tokens |" in result.stdout.splitlines()[-1]
    keys = [params.values["extra_args"]["qr_request_key"] for params in stand_in.parameters]
    assert len(set(keys)) == 3


def test_prompts_come_from_standard_input(stand_in: StandIn) -> None:
    assert generate("--prompt-file=-", standard_input="a\nb\n").exit_code == 0
    assert stand_in.prompts == ["a", "b"]


@pytest.mark.parametrize(
    ("prompts", "keys"), [(["p"], ["mine"]), (["p", "q"], ["mine-0", "mine-1"])]
)
def test_request_key_of_the_user(stand_in: StandIn, prompts: list[str], keys: list[str]) -> None:
    assert generate(*prompts, "--set=qr_request_key=mine").exit_code == 0
    seen = [params.values["extra_args"]["qr_request_key"] for params in stand_in.parameters]
    assert seen == keys


def test_json_is_alone_on_standard_output(
    stand_in: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    result = generate("Once", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["summary"] == {
        "tokens": 3,
        "primary_source": "system",
        "primary_tokens": 3,
        "fallback_tokens": 0,
        "mean_u": 0.5,
        "median_draw_ms": 1.5,
    }
    assert document["discrepancies"] == []
    (completion,) = document["completions"]
    assert completion["text"] == "one\x1b[2Jtwo\ufffd"
    assert document["engine"] == "vLLM 1.2.3 on cpu"
    assert [token["text"] for token in completion["tokens"]] == ["one", "\x1b[2Jtwo", "<13>"]
    assert completion["tokens"][2]["record"]["position"] == 2
    native = capfd.readouterr()
    assert "native banner" not in native.out
    assert "native banner" in native.err


def test_records_are_kept_verbatim(stand_in: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    result = generate("p", f"--records={file}")
    assert result.exit_code == 0, result.stderr
    kinds = [json.loads(line)["kind"] for line in file.read_text("utf-8").splitlines()]
    assert kinds == ["genesis", "token", "token", "token"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert result.stdout.splitlines()[-2] == f"records: {file}"


@pytest.mark.parametrize("dangling", [False, True])
def test_records_replace_a_link_and_not_what_it_leads_to(
    stand_in: StandIn, tmp_path: Path, dangling: bool
) -> None:
    victim, file = tmp_path / "victim", tmp_path / "run.jsonl"
    if not dangling:
        victim.write_text("precious", "utf-8")
    file.symlink_to(victim)
    # A link that leads nowhere is something that exists, too.
    assert generate("p", f"--records={file}").exit_code == 2
    assert generate("p", f"--records={file}", "--force").exit_code == 0
    assert not file.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert victim.exists() is not dangling
    if not dangling:
        assert victim.read_text("utf-8") == "precious"


def test_records_do_not_keep_the_mode_of_what_they_replace(
    stand_in: StandIn, tmp_path: Path
) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text("anybody's", "utf-8")
    file.chmod(0o666)
    with file.open(encoding="utf-8") as reader:
        assert generate("p", f"--records={file}", "--force").exit_code == 0
        assert reader.read() == "anybody's"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_records_do_not_replace_a_device(stand_in: StandIn, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    result = generate("p", f"--records={fifo}", "--force")
    assert result.exit_code == 2
    assert "it is not a regular file" in result.stderr
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert stand_in.prompts == []


def test_existing_records_are_not_overwritten_silently(stand_in: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text("precious", "utf-8")
    result = generate("p", f"--records={file}")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert file.read_text("utf-8") == "precious"
    assert stand_in.prompts == []
    assert generate("p", f"--records={file}", "--force").exit_code == 0
    assert "precious" not in file.read_text("utf-8")
    assert len(file.read_text("utf-8").splitlines()) == 4


def test_records_survive_an_engine_that_fails(stand_in: StandIn, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    stand_in.on_generate = fail
    file = tmp_path / "run.jsonl"
    result = generate("p", f"--records={file}")
    assert result.exit_code == 2
    assert "vLLM failed while generating: RuntimeError: out of memory" in result.stderr
    assert len(file.read_text("utf-8").splitlines()) == 4
    assert stand_in.calls == ["abort", "flush", "flush", "shutdown", "end"]


def test_records_also_go_where_the_user_collects_them(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = tmp_path / "ledger"
    monkeypatch.setenv("QR_LEDGER_DIR", str(collection))
    file = tmp_path / "run.jsonl"
    assert generate("p", f"--records={file}").exit_code == 0
    assert (collection / "engine.jsonl").read_text("utf-8") == file.read_text("utf-8")


def test_private_ledger_leaves_nothing_behind(stand_in: StandIn) -> None:
    assert generate("p").exit_code == 0
    assert not Path(stand_in.environment["QR_LEDGER_DIR"]).exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: lines[:-1], "token 2: 0 records instead of 1"),
        (lambda lines: [*lines, lines[-1]], "token 2: 2 records instead of 1"),
        (lambda lines: [*lines[:-1], {**lines[-1], "token_id": 99}], "its record says 99"),
        (lambda _: [], "token 0: 0 records instead of 1"),
    ],
    ids=["missing", "duplicate", "other token", "none"],
)
def test_records_that_do_not_match_are_loud(
    stand_in: StandIn, spoil: Callable[[list[Line]], list[Line]], message: str
) -> None:
    stand_in.spoil = spoil
    result = generate("p")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "the records do not account for the emitted tokens" in result.stderr
    assert generate("p", "--json").exit_code == 1


def test_token_without_a_record_is_shown_in_its_row(stand_in: StandIn) -> None:
    stand_in.spoil = lambda lines: lines[1:]
    (row,) = [line for line in generate("p").stdout.splitlines() if line.startswith("0 ")]
    assert row.split() == ["0", "'one'", "11", "no", "record"]


def test_flood_of_mismatches_is_cut(stand_in: StandIn) -> None:
    stand_in.spoil = lambda lines: [{**line, "token_id": 0} for line in lines]
    result = generate(*"abcdefgh")
    assert result.exit_code == 1
    assert "mismatch: and 4 more" in result.stderr


def fall_back(lines: list[Line]) -> list[Line]:
    spare = {"source": "mock_uniform", "fallback": True}
    reason = {"fallback_reason": "the server\x1b[31m is gone"}
    return [lines[0], {**lines[1], **spare, **reason}, lines[2]]


def test_fallback_is_shown_and_allowed(stand_in: StandIn) -> None:
    stand_in.spoil = fall_back
    result = generate("p")
    assert result.exit_code == 0
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("1 ")]
    assert row.split()[-2:] == ["mock_uniform", "FALLBACK"]
    assert "66.7 % from system | 33.3 % fallback" in result.stdout.splitlines()[-1]


def test_fallback_fails_where_the_primary_source_is_required(stand_in: StandIn) -> None:
    assert generate("p", "--require-primary").exit_code == 0
    stand_in.spoil = fall_back
    result = generate("p", "--require-primary")
    assert result.exit_code == 3
    assert "1 of 3 tokens did not come from system:" in result.stderr
    assert "1 because the server\\x1b[31m is gone" in result.stderr


def test_every_reason_is_given_with_its_count(stand_in: StandIn) -> None:
    reasons = ["no answer for 0.4 s", "no answer for 12 s", "a quota of 12"]
    stand_in.spoil = lambda lines: [
        {**line, "source": "mock_uniform", "fallback": True, "fallback_reason": reason}
        for line, reason in zip(lines, reasons, strict=True)
    ]
    result = generate("p", "--require-primary")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-3:] == [
        "error: 3 of 3 tokens did not come from system:",
        "  2 because no answer for 0.4 s",
        "  1 because a quota of 12",
    ]
    ended = {"kind": "forced", "request_key": "x", "position": 2, "token_id": 13, "reason": "gone"}
    stand_in.spoil = lambda lines: [*lines[:2], {**ended, "request_key": lines[2]["request_key"]}]
    result = generate("p", "--require-primary")
    assert result.stderr.splitlines()[-1] == "  1 because gone"


@pytest.mark.parametrize("model", ["./nowhere", "/no/such/model", "../a/b", "a/b/c", "~/nowhere"])
def test_a_model_that_does_not_exist_is_named_at_once(stand_in: StandIn, model: str) -> None:
    result = CliRunner().invoke(app, ["generate", "p", f"--model={model}"])
    assert result.exit_code == 2
    assert f"error: --model {model}: there is no such directory" in result.stderr
    assert "starting vLLM" not in result.stderr
    assert stand_in.prompts == []


def test_a_directory_without_a_model_is_named_at_once(stand_in: StandIn, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["generate", "p", f"--model={tmp_path}"])
    assert result.exit_code == 2
    assert "the directory holds none of config.json, params.json" in result.stderr
    assert stand_in.prompts == []


@pytest.mark.parametrize("model", ["gpt2", "Qwen/Qwen2.5-1.5B-Instruct", "a/b:Q4_K", "s3://a/b/c"])
def test_names_of_the_hub_are_left_to_vllm(stand_in: StandIn, model: str) -> None:
    assert CliRunner().invoke(app, ["generate", "p", f"--model={model}"]).exit_code == 0
    assert stand_in.engine_arguments["model"] == model


def test_lines_that_are_no_record_are_told_and_left_out(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def tear() -> None:
        path = Path(os.environ["QR_LEDGER_DIR"]) / "engine.jsonl"
        path.write_bytes(path.read_bytes() + b'{"kind": "token", "requ')

    stand_in.on_generate = tear
    result = generate("p", f"--records={tmp_path / 'run.jsonl'}")
    assert result.exit_code == 0, result.stderr
    assert "left out of the ledger, as no record: " in result.stderr
    assert "engine.jsonl:5" in result.stderr
    assert len((tmp_path / "run.jsonl").read_text("utf-8").splitlines()) == 4


def test_the_token_table_fits_a_narrow_window(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    awkward = {
        "token_id": 151_643, "u": 1e-300, "rank": 151_000, "probability": 1.234e-05,
        "temperature": 0.7123, "entropy_nats": 10.25, "source": "quantum_grpc",
    }  # fmt: skip
    stand_in.spoil = lambda lines: [{**line, **awkward} for line in lines]
    monkeypatch.setitem(WORDS, 11, "antidisestablishmentarianism" * 2)
    shown = generate("p").stdout.split("\n\n")[1]
    assert max(map(len, shown.splitlines())) <= 80
    for figure in ("151000", "1.23e-05", "0.7123", "10.250", "quantum_grpc"):
        assert figure in shown
    assert "…" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no prompt"),
        (("p", "--set=qr_top_k=abc"), "qr_top_k='abc'"),
        (("p", "--set=qr_bogus=1"), "qr_bogus='1': unknown key"),
        (("p", "--set=bogus=1"), "keys begin with 'qr_'"),
        (("p", "--set=qr_top_k"), "expected KEY=VALUE"),
        (("p", "--set=qr_top_k=1", "--top-k=2"), "already set to '2'"),
        (("p", "--engine-arg=model=x"), "named by --model"),
        (("p", "--engine-arg==x"), "expected KEY=VALUE"),
        (("p", "--strategy=edt", "--temperature=1"), "no effect on the temperature strategy 'edt'"),
        (("p", "--strategy=bogus"), "unknown temperature strategy 'bogus'"),
        (("p", "--amplifier=bogus"), "unknown signal amplifier 'bogus'"),
        (("p", "--source=bogus"), "unknown entropy source 'bogus'"),
        (("p", "--fallback=bogus"), "unknown entropy source 'bogus'"),
        (("--prompt-file=/no/such/file",), "cannot read the prompts in /no/such/file"),
        (("p", "--records=/no/such/directory/file"), "existing directory"),
    ],
)
def test_mistake_is_reported_before_the_engine_starts(
    stand_in: StandIn, arguments: tuple[str, ...], message: str
) -> None:
    def start() -> None:
        raise AssertionError("the engine was started")

    stand_in.on_start = start
    result = generate(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("QR_SIGNAL_AMPLIFIER_TYPE", "bogus", "unknown signal amplifier 'bogus'"),
        ("QR_SIGNAL_AMPLIFIER_TYPE", "ecdf", "set QR_BASELINE_FILE"),
        ("QR_TEMPERATURE_STRATEGY", "bogus", "unknown temperature strategy 'bogus'"),
        ("QR_SAMPLE_COUNT", "3", "away from uniform"),
    ],
)
def test_mistake_in_the_deployment_is_reported_even_if_the_request_avoids_it(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """The plugin would refuse it as well, but only when the engine has started."""

    def start() -> None:
        raise AssertionError("the engine was started")

    stand_in.on_start = start
    monkeypatch.setenv(variable, value)
    result = generate("p", "--amplifier=exact_sum", "--sample-count=64", "--strategy=fixed")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {variable}=")
    assert message in result.stderr


def test_engine_that_does_not_start_is_reported_with_its_reason(stand_in: StandIn) -> None:
    def refuse() -> None:
        raise ValueError("no such model")

    stand_in.on_start = refuse
    quiet = generate("p")
    assert quiet.exit_code == 2
    assert "nothing here has that name): ValueError: no such model" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    verbose = generate("p", "--verbose")
    assert verbose.exit_code == 2
    assert "Traceback" in verbose.stderr


def test_missing_vllm_is_named_with_its_remedy(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    result = generate("p", "--engine=vllm")
    assert result.exit_code == 2
    assert "vLLM is not installed" in result.stderr
    assert "pip install vllm" in result.stderr


def test_vllm_without_the_plugin_is_refused(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = types.SimpleNamespace(module="somebody_else.processor")
    monkeypatch.setattr("qr_sampler_cli.engines.plugin.entry_points", lambda **_: (other,))
    result = generate("p", "--engine=vllm")
    assert result.exit_code == 2
    assert "pip install ./packages/qr-sampler-vllm" in result.stderr


def test_broken_vllm_is_told_from_a_missing_one(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "vllm"
    package.mkdir()
    for name in ("vllm", "vllm.platforms"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    (package / "__init__.py").write_text("raise OSError('libcuda.so.1: not found')", "utf-8")
    assert "fails to import (OSError: libcuda.so.1" in generate("p").stderr
    (package / "__init__.py").write_text("import no_such_lib", "utf-8")
    assert "installed but lacks no_such_lib" in generate("p").stderr


def test_progress_on_a_terminal_counts_the_recorded_tokens(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = progress_console()
    terminal.file = io.StringIO()
    monkeypatch.setattr("qr_sampler_cli.terminal.progress.progress_console", lambda: terminal)
    assert generate("p", "--no-table").exit_code == 0
    shown = terminal.file.getvalue()
    assert "starting vLLM with m" in shown
    assert "3 tokens recorded" in shown


def test_records_that_cannot_be_written_are_an_error(stand_in: StandIn, tmp_path: Path) -> None:
    place = tmp_path / "soon gone"
    place.mkdir()
    stand_in.on_generate = place.rmdir
    result = generate("p", f"--records={place / 'run.jsonl'}")
    assert result.exit_code == 2
    assert "cannot write the records" in result.stderr
