# SPDX-License-Identifier: Apache-2.0
"""The commands around real engines; those with vLLM in processes of their own.

Skipped where they are not installed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qr_sampler.errors import ConfigError
from qr_sampler_cli.engines import EngineName, choose_engine, deployed, load
from qr_sampler_cli.generation.ledger_reader import Ledger, read_ledger
from qr_sampler_cli.generation.reconciliation import Emission, find_discrepancies
from qr_sampler_cli.main import app
from qr_sampler_local.engines import EmittedToken, Generated, LocalEngine, continuation

pytest.importorskip("vllm", reason="needs vLLM; the nox session `vllm` has it")
pytest.importorskip("qr_sampler_vllm")
pytest.importorskip("qr_sampler_grpc")

STEPS = 20
"""Enough for a model that loads; what it says does not matter here."""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_file("-m", *arguments, **variables)


def run_file(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QR_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the demo, with its model in place but hardly trained."""
    directory = tmp_path_factory.mktemp("demo")
    model = directory / "tiny-model"
    result = run("qr_sampler_cli", "tiny-model", str(model), f"--steps={STEPS}")
    assert result.returncode == 0, result.stderr
    return directory


def test_generate_accounts_for_every_token_of_a_real_engine(place: Path, tmp_path: Path) -> None:
    records = tmp_path / "run.jsonl"
    result = run(
        "qr_sampler_cli", "generate", "The light", "When I", f"--model={place / 'tiny-model'}",
        "--max-tokens=6", "--top-k=40", "--json", f"--records={records}", "--require-primary",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["discrepancies"] == []
    assert document["summary"]["tokens"] == document["summary"]["primary_tokens"] > 0
    lines = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    assert lines[0]["kind"] == "genesis"
    tokens = [line for line in lines if line["kind"] == "token"]
    assert len(tokens) == document["summary"]["tokens"]
    assert all(line["candidates"] <= 40 for line in tokens)
    for completion in document["completions"]:
        emitted = [token["token_id"] for token in completion["tokens"]]
        assert emitted == [token["record"]["token_id"] for token in completion["tokens"]]
    audit = run("qr_sampler_cli", "audit", str(records), "--json")
    assert audit.returncode == 0, audit.stdout
    rungs = json.loads(audit.stdout)["runs"][0]["rungs"]
    assert [rung["status"] for rung in rungs[2:4]] == ["holds", "holds"]


def test_dead_server_is_flagged_fallback_and_not_an_outage(place: Path) -> None:
    result = run(
        "qr_sampler_cli", "generate", "The light", f"--model={place / 'tiny-model'}",
        "--max-tokens=2", "--source=quantum_grpc", "--require-primary",
        # Nothing listens on the discard port of the loopback interface.
        QR_GRPC_SERVER_ADDRESS="127.0.0.1:9",
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    assert "0.0 % from quantum_grpc | 100.0 % fallback" in result.stdout.splitlines()[-1]
    assert "did not come from quantum_grpc" in result.stderr


def test_demo_takes_every_token_from_the_server(place: Path) -> None:
    result = run(
        "qr_sampler_cli.demo", f"--training-steps={STEPS}", "--max-tokens=4",
        QR_DEMO_DIR=str(place),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "reused" in result.stderr
    *_, named, summary = result.stdout.splitlines()
    assert "100.0 % from quantum_grpc | 0.0 % fallback" in summary
    records = Path(named.removeprefix("records: "))
    lines = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    draws = [line for line in lines if line["kind"] == "draw"]
    assert draws
    assert {line["source_distribution"] for line in draws} == {"qr-sampler-grpc"}
    # The answer was asked for after the logits were complete, on one clock, and the server was told
    # of the tokens that it was going to decide.
    audit = run("qr_sampler_cli", "audit", str(records), "--json")
    assert audit.returncode == 0, audit.stdout
    rungs = json.loads(audit.stdout)["runs"][0]["rungs"]
    assert [rung["status"] for rung in rungs[1:4]] == ["holds", "holds", "holds"]
    assert all(line["commitment"] and line["echo_verified"] for line in draws)


def test_vllm_meets_the_protocol_of_engines(place: Path) -> None:
    # An engine that was started leaves threads and modules behind, so it gets its own process.
    result = run_file(__file__, str(place / "tiny-model"))
    assert result.returncode == 0, result.stderr
    judge(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", ["transformers", "mlx"])
def test_engines_of_this_process_meet_the_protocol(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in MODULES[name]:
        pytest.importorskip(module)
    without_settings(monkeypatch)
    judge(exercised(name, str(place / "tiny-model")))


@pytest.mark.parametrize("name", ["transformers", "mlx"])
def test_generate_is_the_same_for_engines_of_this_process(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in MODULES[name]:
        pytest.importorskip(module)
    without_settings(monkeypatch)
    records = tmp_path / "run.jsonl"
    arguments = (
        "generate", "The light", "When I", f"--model={place / 'tiny-model'}", f"--engine={name}",
        "--max-tokens=6", "--top-k=40", "--json", f"--records={records}", "--require-primary",
    )  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["engine"].partition(" ")[0].lower().startswith(name)
    assert document["discrepancies"] == []
    assert document["summary"]["tokens"] == document["summary"]["primary_tokens"] > 0
    lines = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    assert all(line["candidates"] <= 40 for line in lines if line["kind"] == "token")
    audit = CliRunner().invoke(app, ["audit", str(records), "--json"])
    assert audit.exit_code == 0, audit.stdout
    rungs = json.loads(audit.stdout)["runs"][0]["rungs"]
    assert [rung["status"] for rung in rungs[2:4]] == ["holds", "holds"]


def test_doctor_generates_a_token_with_a_real_engine(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlx_lm")
    without_settings(monkeypatch)
    arguments = ("doctor", "mlx", f"--model={place / 'tiny-model'}", "--token", "--json")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stdout
    said = {
        (finding["section"], finding["check"]): finding["found"]
        for finding in json.loads(result.stdout)["findings"]
    }
    assert said["engine", "import"] == "MLX-LM and its adapter import"
    assert said["accelerators", "device"].startswith("MLX ")
    assert said["model", "vocabulary"] == "2048 tokens"
    assert said["token", "generated"].endswith("from system; it has one record")


MODULES = {"transformers": ("torch", "transformers"), "mlx": ("mlx.core", "mlx_lm")}
"""What has to be importable for each engine."""


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("QR_")]:
        monkeypatch.delenv(name)


def exercised(name: str, model: str) -> dict[str, Any]:
    """Returns what an engine does in four calls: a whole one, Ctrl-C, an error, and a whole one."""
    choice = choose_engine(EngineName(name), model)
    with deployed(choice, model, {"QR_ENTROPY_SOURCE_TYPE": "system"}) as deployment:
        with load(choice, model, deployment) as engine:
            calls = dict(calls_of(engine))
            about = [engine.name, bool(engine.version), engine.device]
        ledger = read_ledger(deployment.ledger_dir, calls)
    return {"about": about, "calls": calls, "problems": problems(calls, ledger)}


def calls_of(engine: LocalEngine) -> Iterator[tuple[str, Any]]:
    """Yields by request key what was handed over, what was returned, and the text."""
    prompts = [engine.encode("The light"), engine.encode("When I")]
    seen: list[EmittedToken] = []

    def interrupt(token: EmittedToken) -> None:
        seen.append(token)
        if token.position == 3 and token.prompt == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def fail(token: EmittedToken) -> None:
        seen.append(token)
        if token.position == 2:
            raise ZeroDivisionError

    def call(key: str, on_token: Any, max_tokens: int) -> Iterator[tuple[str, Any]]:
        seen.clear()
        keys = [f"{key}-{index}" for index in range(len(prompts))]
        options = [{"qr_request_key": each} for each in keys]
        generated: list[Generated] = []
        try:
            generated = engine.generate(
                prompts, max_tokens=max_tokens, options=options, on_token=on_token
            )
        except ZeroDivisionError:
            assert key == "error"
        for index, each in enumerate(keys):
            own = [token for token in seen if token.prompt == index]
            result = generated[index] if generated else None
            yield (
                each,
                {
                    "handed over": [(token.position, token.token_id) for token in own],
                    "u": [token.u for token in own],
                    "sources": sorted({str(token.source) for token in own}),
                    "returned": result and list(result.tokens),
                    "reason": result and result.finish_reason,
                    "key": result and result.request_key,
                    "named": bool(result and result.sequence),
                    "text": result and continuation(engine, prompts[index], result.tokens),
                    "spelled": result and [engine.spell(token) for token in result.tokens],
                },
            )

    yield from call("whole", seen.append, 5)
    yield from call("interrupted", interrupt, 50)
    yield from call("error", fail, 50)
    yield from call("silent", None, 5)
    with pytest.raises(ConfigError):
        engine.generate([[5] * 100_000], max_tokens=5, options=[{}])
    with pytest.raises(ConfigError):
        engine.generate(prompts[:1], max_tokens=5, options=[{"qr_top_k": "-5"}])


def problems(calls: Mapping[str, Any], ledger: Ledger) -> list[str]:
    """Returns in what the records differ from what was handed over, or returned."""
    emitted = [
        Emission(
            request_key=key,
            token_ids=tuple(
                [token_id for _, token_id in call["handed over"]]
                if call["returned"] is None
                else call["returned"]
            ),
        )
        for key, call in calls.items()
    ]
    # In a call that failed the other prompt may have got further than what was handed over.
    return [each for each in find_discrepancies(emitted, ledger) if "request error-" not in each]


def judge(told: dict[str, Any]) -> None:
    """Checks what :func:`exercised` has returned."""
    assert told["problems"] == []
    assert all(told["about"])
    for key, call in told["calls"].items():
        ids = [token_id for _, token_id in call["handed over"]]
        assert [position for position, _ in call["handed over"]] == list(range(len(ids)))
        if key.startswith("error"):
            assert call["returned"] is None
            assert 1 <= len(ids) <= 3
            continue
        assert call["key"] == key
        assert call["named"]
        assert len(call["spelled"]) == len(call["returned"])
        # The end of a text, token 0 of the tiny model, spells nothing.
        assert call["text"] or set(call["returned"]) <= {0}
        if key.startswith("silent"):
            continue
        assert ids == call["returned"]
        # That of a token which ends a text early may not have arrived.
        assert all(u is None or 0 < u < 1 for u in call["u"])
        assert sum(u is not None for u in call["u"]) >= len(ids) - 1
        if key.startswith("whole"):
            assert call["sources"] == ["system"]
            assert call["reason"] in ("stop", "length")
        else:
            assert call["reason"] in ("stop", "interrupted")
            assert len(ids) <= 5


if __name__ == "__main__":
    print(json.dumps(exercised("vllm", sys.argv[1])))
