# SPDX-License-Identifier: Apache-2.0
"""What happens before the first token: loading, admission, refused layouts, the journal."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler import ConfigError, Settings
from qr_sampler_vllm import flush_records, processor
from qr_sampler_vllm.engine.layout import check_layout, ranks_of
from qr_sampler_vllm.processor import QRSamplerLogitsProcessor
from qr_sampler_vllm.requests.admission import check_request
from qr_sampler_vllm.runners.engines import check_not_loaded, register
from qr_sampler_vllm.testing import engine_config, sampling_params


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


def test_ordinary_layouts_are_accepted() -> None:
    check_layout(engine_config())
    check_layout(engine_config(speculative_config=SimpleNamespace(method="ngram")))
    check_layout(engine_config(speculative_config=SimpleNamespace(rejection_sample_method="block")))


SYNTHETIC = SimpleNamespace(rejection_sample_method="synthetic")
LOSSY = SimpleNamespace(rejection_sample_method="fly")
UNKNOWN = SimpleNamespace(rejection_sample_method="newer")
ADAPTIVE = SimpleNamespace(rejection_sample_method="standard", enable_adaptive_verification=True)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("speculative_config", SYNTHETIC, "rejection_sample_method='synthetic'"),
        ("speculative_config", LOSSY, "rejection_sample_method='fly'"),
        ("speculative_config", UNKNOWN, "rejection_sample_method='newer'"),
        ("speculative_config", ADAPTIVE, "enable_adaptive_verification"),
        ("enable_batch_sharded_sampling", True, "enable_batch_sharded_sampling"),
        ("enable_trace_replay", True, "enable_trace_replay"),
        ("watermark_config", object(), "watermark_config"),
        ("is_diffusion", True, "diffusion model"),
    ],
)
def test_layouts_that_cannot_be_right_are_refused(option: str, value: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check_layout(engine_config(**{option: value}))


def test_refused_layout_leaves_the_engine_free_to_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QR_ENTROPY_SOURCE_TYPE", "system")
    config = engine_config(enable_trace_replay=True)
    for _ in range(2):
        with pytest.raises(ConfigError, match="enable_trace_replay"):
            QRSamplerLogitsProcessor(config, "cpu", False)


def test_engines_know_which_of_several_they_are() -> None:
    """Each engine of a dense model is told that it has rank 0, and only its index is its own."""
    config = engine_config(data_parallel_rank=2)
    assert ranks_of(config).data_parallel_rank == 2
    config.parallel_config.data_parallel_rank = 0
    config.parallel_config.data_parallel_index = 3
    assert ranks_of(config).data_parallel_rank == 3


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
    v1.apply_staged_writes()
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
        QRSamplerLogitsProcessor.validate_params(sampling_params(extra_args=arguments))


@pytest.mark.parametrize("arguments", [None, {}, {"other": object()}, {"qr_top_k": "5"}])
def test_admission_accepts_what_is_valid_or_not_ours(arguments: dict[str, Any] | None) -> None:
    processor._settings.cache_clear()
    QRSamplerLogitsProcessor.validate_params(sampling_params(extra_args=arguments))


def test_a_thinking_budget_is_refused_because_it_overwrites_tokens() -> None:
    processor._settings.cache_clear()
    budget = {"thinking_token_budget": 40}
    with pytest.raises(ValueError, match="thinking_token_budget=40"):
        QRSamplerLogitsProcessor.validate_params(sampling_params(**budget))
    bypassed = sampling_params(extra_args={"qr_bypass": 1}, **budget)
    QRSamplerLogitsProcessor.validate_params(bypassed)


@pytest.mark.parametrize(
    ("mode", "ids", "accepted"),
    [("system", [], True), ("end_request", [], False), ("end_request", [7], True)],
)
def test_a_request_that_has_to_be_ended_needs_a_token_for_it(
    mode: str, ids: list[int], accepted: bool
) -> None:
    settings = Settings.load(fallback_mode=mode)
    endless = sampling_params(ignore_eos=True, stop_token_ids=ids)
    if accepted:
        check_request(settings, endless)
    else:
        with pytest.raises(ConfigError, match=r"ignore_eos=True: .*stop_token_ids"):
            check_request(settings, endless)


LEAVE = """
import multiprocessing, sys
from qr_sampler_vllm.runners.engines import register


class Runner:
    def flush(self):
        pass

    def keep_up(self):
        pass

    def close(self):
        print("closed", flush=True)


def sample():
    global owner
    owner = Runner()
    register(object(), Runner(), owner)


if __name__ == "__main__":
    if sys.argv[1] == "main":
        sample()
    else:
        child = multiprocessing.get_context(sys.argv[1]).Process(target=sample)
        child.start()
        child.join()
"""


@pytest.mark.parametrize("process", ["main", "fork", "spawn"])
def test_records_are_written_when_a_process_ends(process: str, tmp_path: Path) -> None:
    """vLLM samples in the main process or in a child of multiprocessing; both end differently."""
    script = tmp_path / "leave.py"
    script.write_text(LEAVE)
    done = subprocess.run(
        [sys.executable, str(script), process], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["closed"]


class WatchedRunner:
    """Notes what it is called for."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.turns = threading.Semaphore(0)

    def keep_up(self) -> None:
        self.turns.release()

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed.set()


class Owner:
    """Stands in for what vLLM keeps."""


def test_records_of_an_idle_engine_are_written_by_themselves() -> None:
    """Even where nobody but the engine's registration knows of them any more."""
    owner, runner = Owner(), WatchedRunner()
    register(object(), runner, owner)
    turns = runner.turns
    del runner
    for _ in range(3):
        assert turns.acquire(timeout=60)
    assert not hasattr(owner, "closed")


def test_what_vllm_lets_go_of_is_closed_and_forgotten() -> None:
    owner, runner = Owner(), WatchedRunner()
    register(object(), runner, owner)
    closed, gone = runner.closed, weakref.ref(runner)
    del runner, owner
    assert closed.wait(timeout=60)
    deadline = time.monotonic() + 60
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone() is None


def test_a_second_runner_of_one_engine_is_refused_while_the_first_lives() -> None:
    config = Owner()
    owner, first = Owner(), WatchedRunner()
    register(config, first, owner)
    with pytest.raises(ConfigError, match="loaded twice"):
        check_not_loaded(config)
    del owner
    second = Owner()
    register(config, WatchedRunner(), second)
    assert first.closed.wait(timeout=60)


FORK = """
import os, threading
from qr_sampler_vllm.runners.engines import register


def say(name, pid):
    # At once, so that lines of two threads do not mix.
    os.write(1, f"{name} {pid}\\n".encode())


class Runner:
    def __init__(self, name):
        self.name = name
        self.calls = threading.Semaphore(0)

    def flush(self):
        pass

    def keep_up(self):
        say(self.name, os.getpid())
        self.calls.release()

    def close(self):
        pass

    def wait(self):
        for _ in range(3):
            assert self.calls.acquire(timeout=60)


class Owner:
    pass


of_parent, parent = Owner(), Runner("parent")
register(object(), parent, of_parent)
parent.wait()
pid = os.fork()
if pid == 0:
    of_child, child = Owner(), Runner("child")
    register(object(), child, of_child)
    child.wait()
    os._exit(0)
os.waitpid(pid, 0)
say("forked", pid)
"""


def test_a_forked_engine_writes_its_own_records_and_no_others(tmp_path: Path) -> None:
    """The thread of the parent does not come along, and its records are not the child's."""
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    *written, (_, child) = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, pid in written if pid == child} == {"child"}
    assert {name for name, pid in written if pid != child} == {"parent"}
