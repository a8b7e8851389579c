# SPDX-License-Identifier: Apache-2.0
"""Who has opted in to TSD, what is refused then, and what is imported before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler import ConfigError
from qr_sampler_tsd import craft_relative_psi
from qr_sampler_tsd.proposers import BigramProposer, save_proposer
from qr_sampler_vllm.front_end.checks import check_front_end
from qr_sampler_vllm.front_end.dropped_plugin import check_speculation
from qr_sampler_vllm.tsd import worker
from qr_sampler_vllm.tsd.drafter import TSDDrafter
from qr_sampler_vllm.tsd.opt_in import DRAFTER, WORKERS, check_opt_in, opted_in
from qr_sampler_vllm.tsd.settings import TSDSettings

VOCAB_SIZE = 8


def config(**changes: Any) -> SimpleNamespace:
    """The part of vLLM's ``VllmConfig`` that is looked at, of an engine that has opted in."""
    values: dict[str, Any] = {
        "worker_cls": WORKERS[1],
        "method": "custom_class",
        "model": DRAFTER,
        "rejection_sample_method": "standard",
        "num_speculative_tokens": 3,
        "use_v2_model_runner": False,
        "async_scheduling": False,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "logprobs_mode": "raw_logprobs",
        **changes,
    }

    def part(*names: str) -> SimpleNamespace:
        return SimpleNamespace(**{name: values[name] for name in names})

    drafting = part("method", "model", "rejection_sample_method", "num_speculative_tokens")
    return SimpleNamespace(
        parallel_config=part("worker_cls", "tensor_parallel_size", "pipeline_parallel_size"),
        speculative_config=drafting if values["method"] else None,
        scheduler_config=part("async_scheduling"),
        model_config=SimpleNamespace(
            logprobs_mode=values["logprobs_mode"], get_vocab_size=lambda: VOCAB_SIZE
        ),
        use_v2_model_runner=values["use_v2_model_runner"],
    )


@pytest.mark.parametrize("worker_cls", WORKERS)
def test_both_halves_together_are_let_through(worker_cls: str) -> None:
    engine = config(worker_cls=worker_cls)
    assert opted_in(engine)
    check_opt_in(engine)
    check_speculation(engine)
    check_front_end(engine)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": None}, "give speculative_config"),
        ({"method": "ngram"}, "give speculative_config"),
        ({"model": "elsewhere.Drafter"}, "give speculative_config"),
        ({"worker_cls": "auto"}, "set worker_cls to"),
        ({"worker_cls": "elsewhere.Worker"}, "set worker_cls to"),
        ({"use_v2_model_runner": True}, "VLLM_USE_V2_MODEL_RUNNER=0"),
        ({"async_scheduling": True}, "async_scheduling=True"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size=2"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size=2"),
        ({"logprobs_mode": "processed_logprobs"}, "logprobs_mode='processed_logprobs'"),
        ({"rejection_sample_method": "block"}, "rejection_sample_method='block'"),
    ],
)
def test_what_cannot_be_right_is_refused_everywhere(changes: dict[str, Any], named: str) -> None:
    engine = config(**changes)
    assert opted_in(engine)
    for check in (check_opt_in, check_speculation, check_front_end):
        with pytest.raises(ConfigError, match=named):
            check(engine)


V2 = {"use_v2_model_runner": True, "method": "ngram", "model": None}
"""What differs for an engine that has opted in under Model Runner V2."""


@pytest.mark.parametrize(
    "changes",
    [{}, {"method": "ngram_gpu", "async_scheduling": True}, {"tensor_parallel_size": 2}],
    ids=str,
)
def test_under_model_runner_v2_the_worker_stands_in_for_vllms_speculator(
    changes: dict[str, Any],
) -> None:
    engine = config(**{**V2, **changes})
    assert opted_in(engine)
    check_opt_in(engine)
    check_front_end(engine)
    # Without our worker it is vLLM's own, which the logits processor verifies.
    assert not opted_in(config(**{**V2, **changes, "worker_cls": "auto"}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "custom_class", "model": DRAFTER}, "worker_cls=.*VLLM_USE_V2_MODEL_RUNNER=0"),
        ({"method": "eagle"}, "has the method 'eagle'.*ngram, ngram_gpu"),
        ({"method": None}, "has the method None"),
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size=2"),
    ],
)
def test_what_model_runner_v2_cannot_serve_is_refused(changes: dict[str, Any], named: str) -> None:
    engine = config(**{**V2, **changes})
    for check in (check_opt_in, check_front_end):
        with pytest.raises(ConfigError, match=named):
            check(engine)


def test_the_canonical_mode_needs_model_runner_v1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_TSD_MODE", "canonical")
    check_opt_in(config())
    with pytest.raises(ConfigError, match="done for Model Runner V1 only"):
        check_opt_in(config(**V2))


def test_speculation_without_any_half_is_refused_as_before() -> None:
    engine = config(worker_cls="auto", method="ngram")
    assert not opted_in(engine)
    with pytest.raises(ConfigError, match="Model Runner V1 drops logits processors"):
        check_speculation(engine)
    check_speculation(config(worker_cls="auto", method=None))


def test_nothing_else_is_imported_without_opting_in() -> None:
    code = (
        "import sys, qr_sampler_vllm.processor, qr_sampler_vllm.front_end.checks;"
        "ours = ('qr_sampler_tsd', 'qr_sampler_vllm.tsd.');"
        "print(sorted(m for m in sys.modules if m.startswith(ours)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "['qr_sampler_vllm.tsd.opt_in']"


def test_worker_module_is_light_and_has_no_other_names() -> None:
    code = (
        "import sys, qr_sampler_vllm.tsd.worker;"
        "print([m for m in ('vllm', 'torch', 'qr_sampler_tsd') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        worker.Other  # noqa: B018


def save(path: Path, vocab_size: int = VOCAB_SIZE) -> None:
    psi = craft_relative_psi([1.0 / vocab_size] * vocab_size, 2)
    save_proposer(path, BigramProposer.from_payloads(psi, {}))


@pytest.fixture
def proposer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "proposer.npz"
    monkeypatch.setenv("QR_TSD_PROPOSER", str(path))
    return path


def test_a_proposer_for_the_model_is_taken(proposer: Path) -> None:
    save(proposer)
    TSDDrafter(config()).load_model(None)


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_proposer_that_cannot_be_read_is_refused(proposer: Path, content: bytes | None) -> None:
    if content is not None:
        proposer.write_bytes(content)
    with pytest.raises(ConfigError, match=r"QR_TSD_PROPOSER=.*proposer\.npz"):
        TSDDrafter(config())


def test_a_proposer_of_another_vocabulary_is_refused(proposer: Path) -> None:
    save(proposer, VOCAB_SIZE + 1)
    with pytest.raises(ConfigError, match="among 9 tokens and the model has 8"):
        TSDDrafter(config())


def test_no_proposer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QR_TSD_PROPOSER", raising=False)
    with pytest.raises(ConfigError, match="QR_TSD_PROPOSER is not set"):
        TSDDrafter(config())


def test_a_drafter_that_nobody_bound_says_so(proposer: Path) -> None:
    save(proposer)
    with pytest.raises(ConfigError, match="not bound"):
        TSDDrafter(config()).propose([[1]], [1], [[1]])


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MODE", "typical"), ("VERIFIER", "greedy")],
)
def test_settings_name_the_bad_value(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"QR_TSD_{variable}", value)
    with pytest.raises(ConfigError, match=f"QR_TSD_{variable}='{value}'"):
        TSDSettings.load()


def test_settings_have_the_safe_mode_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MODE", "VERIFIER", "PROPOSER"):
        monkeypatch.delenv(f"QR_TSD_{variable}", raising=False)
    settings = TSDSettings.load()
    assert (settings.mode, settings.verifier) == ("exact_match", "block")
    assert TSDSettings.load(mode="canonical").mode == "canonical"
