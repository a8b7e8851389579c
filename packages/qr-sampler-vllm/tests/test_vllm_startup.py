# SPDX-License-Identifier: Apache-2.0
"""What happens before the first token: loading, admission, refused layouts, the journal."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler import ConfigError, Settings
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_vllm import flush_records, processor
from qr_sampler_vllm.journal import Journal
from qr_sampler_vllm.layout import check_layout
from qr_sampler_vllm.processor import QRSamplerLogitsProcessor


def engine_config(**changes: Any) -> SimpleNamespace:
    parallel = SimpleNamespace(
        tensor_parallel_size=changes.get("tensor_parallel_size", 1),
        enable_batch_sharded_sampling=changes.get("enable_batch_sharded_sampling"),
    )
    model = SimpleNamespace(
        model="tiny", enable_trace_replay=changes.get("enable_trace_replay", False)
    )
    return SimpleNamespace(
        device_config=SimpleNamespace(device_type="cpu"),
        parallel_config=parallel,
        model_config=model,
        speculative_config=changes.get("speculative_config"),
        watermark_config=changes.get("watermark_config"),
    )


def test_entry_point_names_the_processor() -> None:
    (found,) = [
        ep for ep in entry_points(group="vllm.logits_processors") if ep.name == "qr_sampler"
    ]
    assert found.load() is QRSamplerLogitsProcessor


def test_import_touches_neither_sources_nor_transports() -> None:
    code = (
        "import sys, qr_sampler_vllm.processor;"
        "print([m for m in ('grpc', 'qr_entropy_sources', 'qr_sampler_grpc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_one_row_engine_is_accepted() -> None:
    check_layout(engine_config())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tensor_parallel_size", 2),
        ("speculative_config", object()),
        ("enable_batch_sharded_sampling", True),
        ("enable_trace_replay", True),
        ("watermark_config", object()),
    ],
)
def test_layouts_that_cannot_be_right_are_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=option.split("_")[0]):
        check_layout(engine_config(**{option: value}))


def test_refused_layout_leaves_the_engine_free_to_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")
    config = engine_config(tensor_parallel_size=2)
    for _ in range(2):
        with pytest.raises(ConfigError, match="tensor_parallel_size=2"):
            QRSamplerLogitsProcessor(config, "cpu", False)


@pytest.mark.parametrize("runner_arguments", [("cpu", False), (SimpleNamespace(max_num_reqs=2),)])
def test_both_constructor_signatures_are_served(
    runner_arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")
    instance = QRSamplerLogitsProcessor(engine_config(), *runner_arguments)
    assert instance.is_argmax_invariant() is False
    instance.update_state(None)
    flush_records()


def test_wrong_runner_calls_are_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")
    v1 = QRSamplerLogitsProcessor(engine_config(), "cpu", False)
    logits = object()
    assert v1.add_request(0, None) is False
    assert v1.apply(logits) is logits


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"qr_top_k": "abc"}, "qr_top_k='abc'"),
        ({"qr_temperature_strategy": "bogus"}, "qr_temperature_strategy='bogus'"),
        ({"qr_sample_count": 0}, "qr_sample_count=0"),
        ({"qr_nonsense": 1}, "qr_nonsense=1"),
    ],
)
def test_admission_names_the_bad_value(arguments: dict[str, Any], named: str) -> None:
    processor._settings.cache_clear()
    with pytest.raises(ValueError, match=named):
        QRSamplerLogitsProcessor.validate_params(SimpleNamespace(extra_args=arguments))


@pytest.mark.parametrize("arguments", [None, {}, {"other": object()}, {"qr_top_k": "5"}])
def test_admission_accepts_what_is_valid_or_not_ours(arguments: dict[str, Any] | None) -> None:
    processor._settings.cache_clear()
    QRSamplerLogitsProcessor.validate_params(SimpleNamespace(extra_args=arguments))


def test_journal_starts_with_a_genesis_line_that_gives_nothing_away(tmp_path: Path) -> None:
    settings = Settings.load(ledger_dir=tmp_path / "ledger")
    journal = Journal(settings, ConstantEntropySource(), "tiny")
    journal.close()
    (file,) = (tmp_path / "ledger").glob("*.jsonl")
    (line,) = file.read_text(encoding="utf-8").splitlines()
    genesis = json.loads(line)
    assert genesis["kind"] == "genesis"
    assert genesis["run_id"] == journal.run_id
    assert genesis["versions"]["qr-sampler-core"]
    assert "ledger_dir" not in genesis["settings"]
    assert str(tmp_path) not in line


def test_journal_without_a_directory_keeps_no_file(tmp_path: Path) -> None:
    journal = Journal(Settings.load(), ConstantEntropySource(), "tiny")
    journal.write([])
    journal.close()
    assert list(tmp_path.iterdir()) == []


LEAVE = """
import multiprocessing, sys
from qr_sampler_vllm.engines import register


class Runner:
    def flush(self):
        print("flushed", flush=True)


def sample():
    global runner
    runner = Runner()
    register(Runner, runner)


if __name__ == "__main__":
    if sys.argv[1] == "main":
        sample()
    else:
        child = multiprocessing.get_context(sys.argv[1]).Process(target=sample)
        child.start()
        child.join()
"""


@pytest.mark.parametrize("process", ["main", "fork", "spawn"])
def test_records_are_flushed_when_a_process_ends(process: str, tmp_path: Path) -> None:
    """vLLM samples in the main process or in a child of multiprocessing; both end differently."""
    script = tmp_path / "leave.py"
    script.write_text(LEAVE)
    done = subprocess.run(
        [sys.executable, str(script), process], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["flushed"]
