# SPDX-License-Identifier: Apache-2.0
"""The demo around a run that is made up; with a real engine it is run in ``test_cli_engine.py``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qr_sampler_grpc", reason="qr-sampler-grpc is an extra of this package")

from qr_sampler_cli import demo as demo_module
from qr_sampler_cli.engines import EngineChoice, EngineName
from qr_sampler_cli.generation.ledger_reader import Ledger, LedgerLine
from qr_sampler_cli.generation.reconciliation import Emission
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.generation.run import Completion, GenerationRequest, GenerationRun
from qr_sampler_grpc.source import QuantumGrpcSource

TOKEN = {
    "kind": "token",
    "request_key": "k",
    "position": 0,
    "token_id": 7,
    "u": 0.5,
    "temperature": 0.7,
    "entropy_nats": 1.0,
    "rank": 0,
    "probability": 0.5,
    "source": "quantum_grpc",
    "fallback": False,
    "t_request_ns": 0,
    "t_received_ns": 1_000_000,
}


class MadeUpRun:
    """Stands in for the engine: asks the server for a byte, and reports *lines* as its records."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        self.ledger = Ledger(
            lines=tuple(LedgerLine(text=json.dumps(line), values=line) for line in lines)
        )
        self.request: GenerationRequest | None = None
        self.drawn = b""

    def __call__(self, request: GenerationRequest, *, records: RecordsFile) -> GenerationRun:
        self.request = request
        source = QuantumGrpcSource(request.variables["QR_GRPC_SERVER_ADDRESS"])
        self.drawn = source.get_random_bytes(16)
        source.close()
        records.write(self.ledger)
        completion = Completion(
            emission=Emission(request_key="k", token_ids=(7,)),
            prompt="The light",
            text=" shines",
            token_texts=(" shines",),
            finish_reason="length",
        )
        return GenerationRun(
            request=request,
            engine="an engine",
            primary_source=request.variables["QR_ENTROPY_SOURCE_TYPE"],
            completions=(completion,),
            ledger=self.ledger,
        )


def chosen(name: EngineName, _model: str) -> EngineChoice:
    """The choice where everything is installed."""
    return EngineChoice("vllm" if name is EngineName.AUTO else name.value)


@pytest.fixture
def run_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, MadeUpRun]]:
    """Runs the demo as ``python -m`` does and returns its exit status and the made-up run."""

    def run(*lines: dict[str, Any], arguments: tuple[str, ...] = ()) -> tuple[int, MadeUpRun]:
        made_up = MadeUpRun(*lines)
        monkeypatch.setattr(demo_module, "run_generation", made_up)
        monkeypatch.setattr(demo_module, "choose_engine", chosen)
        monkeypatch.setattr(demo_module, "prepare_tiny_model", lambda path, **_: f"{path}: reused")
        monkeypatch.setenv("QR_DEMO_DIR", str(tmp_path / "place"))
        # What the user has set for another server must not reach the demo's.
        monkeypatch.setenv("QR_GRPC_METHOD_PATH", "/qrng.QuantumRNG/GetRandomBytes")
        monkeypatch.setattr(sys, "argv", ["demo", *arguments])
        with pytest.raises(SystemExit) as end:
            demo_module.main()
        return int(end.value.code or 0), made_up

    return run


def test_demo_succeeds_when_every_token_came_from_the_server(
    run_demo: Callable[..., tuple[int, MadeUpRun]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, made_up = run_demo(TOKEN, arguments=("The light", "--max-tokens=3", "--engine=mlx"))
    output = capsys.readouterr().out
    assert status == 0
    assert len(made_up.drawn) == 16
    assert made_up.request is not None
    assert made_up.request.model == str(tmp_path / "place" / "quick-tiny-model")
    assert made_up.request.prompts == ("The light",)
    assert made_up.request.max_tokens == 3
    assert made_up.request.engine is EngineName.MLX
    *_, named, summary = output.splitlines()
    (records,) = (tmp_path / "place" / "records").iterdir()
    assert named == f"records: {records}"
    assert json.loads(records.read_text("utf-8")) == TOKEN
    assert summary == (
        "1 tokens | 100.0 % from quantum_grpc | 0.0 % fallback | mean u 0.5000"
        " | median draw 1.000 ms"
    )


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param(({**TOKEN, "source": "system", "fallback": True},), 3, id="fallback"),
        pytest.param(({**TOKEN, "source": "system"},), 3, id="other source"),
        pytest.param((), 1, id="no record"),
        pytest.param((TOKEN, TOKEN), 1, id="two records"),
    ],
)
def test_demo_fails_otherwise(
    run_demo: Callable[..., tuple[int, MadeUpRun]],
    lines: tuple[dict[str, Any], ...],
    status: int,
) -> None:
    assert run_demo(*lines)[0] == status


def test_demo_trains_less_where_no_engine_takes_long_to_start(tmp_path: Path) -> None:
    def plan(engine: str, steps: int | None = None) -> tuple[str, int]:
        model, steps = demo_module.planned_model(tmp_path, EngineChoice(engine), steps)
        return model.name, steps

    assert plan("vllm") == ("tiny-model", 1000)
    assert plan("transformers") == plan("mlx") == ("quick-tiny-model", 500)
    assert plan("transformers", 7) == plan("vllm", 7) == ("tiny-model", 7)


def test_server_is_gone_afterwards(run_demo: Callable[..., tuple[int, MadeUpRun]]) -> None:
    _, made_up = run_demo(TOKEN)
    assert made_up.request is not None
    source = QuantumGrpcSource(made_up.request.variables["QR_GRPC_SERVER_ADDRESS"])
    assert not source.probe().available
    source.close()


def test_demo_stops_early_when_the_server_does_not_answer(
    run_demo: Callable[..., tuple[int, MadeUpRun]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo_module, "SOURCE", "device_file")
    monkeypatch.setenv("QR_DEVICE_FILE_PATH", "/no/such/device")
    status, made_up = run_demo(TOKEN)
    assert status == 2
    assert "'device_file' is unavailable" in capsys.readouterr().err
    assert made_up.request is None


def test_demo_refuses_an_engine_that_cannot_read_its_model(
    run_demo: Callable[..., tuple[int, MadeUpRun]], capsys: pytest.CaptureFixture[str]
) -> None:
    status, made_up = run_demo(TOKEN, arguments=("--engine=llama-cpp",))
    assert status == 2
    assert "run it with transformers, mlx or vllm" in capsys.readouterr().err
    assert made_up.request is None


def test_place_is_the_users_cache_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("QR_DEMO_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo_module.default_directory() == tmp_path / "qr-sampler" / "demo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert demo_module.default_directory() == tmp_path / ".cache" / "qr-sampler" / "demo"
