# SPDX-License-Identifier: Apache-2.0
"""The engines that :mod:`benchmarks.tsd_drafting` compares, each in a process of its own.

All live at the same time and generate in turns, so that each meets the same machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from benchmarks.engine_process import ENVIRONMENT, OPTIONS
from qr_sampler.records.reader import read_ledger

__all__ = ["CONTENDERS", "PROMPTS", "WORKLOADS", "Contender", "EngineProcess", "Workload", "serve"]

DRAFTS: Final = 4
PROMPTS: Final = (
    "Light is",
    "The Rays of",
    "A Glass",
    "Colours",
    "If the Sun",
    "The Prism",
    "Bodies",
    "In the Book",
)


class Workload(NamedTuple):
    """What is asked for."""

    name: str
    """How the table calls it."""
    temperature: float
    """Of the requests; 0 for the most probable token."""

    @property
    def extra(self) -> dict[str, Any]:
        """Arguments of the requests."""
        if self.temperature:
            return {"qr_fixed_temperature": self.temperature}
        return {"qr_top_k": 1}


WORKLOADS: Final = (Workload("T = 0.7", 0.7), Workload("greedy", 0.0))


class Contender(NamedTuple):
    """One engine."""

    title: str
    """How the table calls it."""
    method: str = ""
    """``tsd``, ``ngram`` for vLLM's own without the plugin, or nothing."""
    mode: str = ""
    """Mode of TSD."""
    verifier: str = ""
    """Rule of the canonical mode."""
    proposer: str = ""
    """``QR_TSD_PROPOSER``, with ``TABLE`` for the file of the table."""

    def does(self, workload: Workload) -> bool:
        """Whether it can be compared in *workload*.

        vLLM's CPU build divides logits by uninitialised memory when it verifies drafts at a
        temperature (0.32.0, without Triton), so that its own speculation is compared greedily only.
        """
        return self.method != "ngram" or not workload.temperature


CONTENDERS: Final = (
    Contender("no speculation"),
    Contender("vLLM's n-gram, without the plugin", "ngram"),
    Contender("exact_match, bigram", "tsd", "exact_match", "", "TABLE"),
    Contender("exact_match, n-gram", "tsd", "exact_match", "", "ngram"),
    Contender("exact_match, n-gram + bigram", "tsd", "exact_match", "", "ngram+TABLE"),
    Contender("canonical by token, bigram", "tsd", "canonical", "token", "TABLE"),
    Contender("canonical by block, bigram", "tsd", "canonical", "block", "TABLE"),
    Contender("canonical by block, n-gram + bigram", "tsd", "canonical", "block", "ngram+TABLE"),
)


class EngineProcess:
    """One engine, ready to generate.

    Args:
        contender: Which.
        model: Directory of the model.
        table: File of the table.
        ledger: Directory for its records.
    """

    def __init__(self, contender: Contender, model: Path, table: Path, ledger: Path) -> None:
        self.contender = contender
        self._ledger = ledger
        self._tokens = self._accepted = 0
        environment = {**os.environ, **ENVIRONMENT}
        if contender.method == "ngram":
            environment["VLLM_PLUGINS"] = "none"
        environment |= {"QR_LEDGER_DIR": str(ledger), "QR_LEDGER_MODEL_DIGEST": "false"}
        if contender.method == "tsd":
            proposer = contender.proposer.replace("TABLE", str(table))
            environment |= {"QR_TSD_MODE": contender.mode, "QR_TSD_PROPOSER": proposer}
        if contender.verifier:
            environment["QR_TSD_VERIFIER"] = contender.verifier
        command = [sys.executable, "-m", "benchmarks.tsd_drafting", str(model)]
        self._process = subprocess.Popen(
            [*command, f"--serve={contender.title}"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def round(self, name: str, workload: Workload, batch: int, tokens: int) -> tuple[float, float]:
        """Generates once; returns the seconds by the clock and of the processor."""
        assert self._process.stdin is not None
        task = {
            "key": name,
            "extra": workload.extra,
            "temperature": workload.temperature,
            "batch": batch,
            "tokens": tokens,
        }
        print(json.dumps(task), file=self._process.stdin, flush=True)
        wall, processor, self._tokens, self._accepted = self._answer()
        return wall, processor

    def tokens_per_pass(self, name: str) -> float:
        """Returns tokens per pass of the model in all rounds of that name.

        Of vLLM's own speculation it is that of the last round, by vLLM's count of accepted drafts.
        """
        if self.contender.method == "ngram":
            return self._tokens / (self._tokens - self._accepted)
        (file,) = self._ledger.glob("*.jsonl")
        tokens, seen = 0, set()
        for line in read_ledger(file):
            if line["kind"] == "token" and line["request_key"] == name:
                tokens += 1
                # Rows of one step share the time at which their logits were complete.
                seen.add((line["sequence"], line["t_logits_ns"]))
        return tokens / len(seen)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # What vLLM prints besides is no answer.
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(f"the engine {self.contender.title!r} has ended; see above")

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def serve(model: Path, title: str) -> None:
    """Generates what the lines of the standard input ask for, until there are no more."""
    from vllm import LLM, SamplingParams

    import qr_sampler_vllm

    (contender,) = (each for each in CONTENDERS if each.title == title)
    llm = LLM(
        model=str(model),
        max_model_len=512,
        max_num_seqs=len(PROMPTS),
        disable_log_stats=False,
        **OPTIONS,
        **_speculation(contender),
    )
    print("answer []", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        extra = {**task["extra"], "qr_request_key": task["key"]}
        params = SamplingParams(
            max_tokens=task["tokens"],
            ignore_eos=True,
            temperature=task["temperature"],
            extra_args=extra,
        )
        accepted = -_accepted(llm)
        before = time.perf_counter(), time.process_time()
        llm.generate(list(PROMPTS[: task["batch"]]), params, use_tqdm=False)
        seconds = time.perf_counter() - before[0], time.process_time() - before[1]
        if contender.method != "ngram":
            qr_sampler_vllm.flush_records()
        accepted += _accepted(llm)
        tokens = task["tokens"] * task["batch"]
        print("answer", json.dumps([*seconds, tokens, accepted]), flush=True)


def _accepted(llm: Any) -> float:
    """Returns how many drafts vLLM has accepted so far."""
    name = "vllm:spec_decode_num_accepted_tokens"
    return float(sum(metric.value for metric in llm.get_metrics() if metric.name == name))


def _speculation(contender: Contender) -> dict[str, Any]:
    """Returns the options of vLLM that make it draft."""
    if contender.method == "tsd":
        return {
            "worker_cls": "qr_sampler_vllm.tsd.worker.TSDCPUWorker",
            "speculative_config": {
                "method": "custom_class",
                "model": "qr_sampler_vllm.tsd.drafter.TSDDrafter",
                "num_speculative_tokens": DRAFTS,
            },
        }
    if contender.method == "ngram":
        return {
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": DRAFTS,
                "prompt_lookup_max": 4,
                "prompt_lookup_min": 1,
            }
        }
    return {}
