# SPDX-License-Identifier: Apache-2.0
"""Engines that cannot be served rightly do not start, and say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REFUSED = """
    said = {}
    for case in task["cases"]:
        os.environ.update(case["environment"])
        task["engine"] = case["engine"]
        try:
            engine()
        except Exception as error:
            said[case["name"]] = str(error)
        else:
            said[case["name"]] = "nothing"

    # Imported by now; before, it would keep the plugin from watching what vLLM builds.
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker
    from qr_sampler_vllm.tsd import worker

    assert issubclass(worker.TSDCPUWorker, (CPUWorker, worker.Verifying))
    assert issubclass(worker.TSDWorker, (Worker, worker.Verifying))
    assert worker.TSDWorker is worker.TSDWorker
    assert worker.TSDCPUWorker.init_device is worker.Verifying.init_device
    result(said)
"""


def test_engines_that_cannot_be_right_do_not_start(
    offline_engine: Callable[[str], Any], tsd: Any, tmp_path: Any
) -> None:
    tsd.save({300: 0.5, 301: 0.4}, vocab_size=1000)
    both = tsd.options
    worker = {"worker_cls": both["worker_cls"]}
    drafter = {"speculative_config": both["speculative_config"]}
    ngram = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}

    def case(name: str, engine: dict[str, Any], **environment: str) -> dict[str, Any]:
        return {"name": name, "engine": engine, "environment": environment}

    cases = [
        case("worker alone", worker),
        case("worker with n-grams", {**worker, "speculative_config": ngram}),
        case("n-grams alone", {"speculative_config": ngram}),
        case("drafter alone", drafter),
        case("other vocabulary", both),
        case("missing file", both, QR_TSD_PROPOSER=str(tmp_path / "nothing.npz")),
        case("unknown mode", both, QR_TSD_MODE="typical"),
    ]
    engine = offline_engine("v1")
    said = engine.result(tsd.script(REFUSED), {"cases": cases}, tsd.environment("exact_match"))
    for name, sentence in {
        "worker alone": "give speculative_config",
        "worker with n-grams": "give speculative_config",
        "n-grams alone": "Model Runner V1 drops logits processors",
        "drafter alone": "set worker_cls to",
        "other vocabulary": "proposes among 1000 tokens and the model has 2048",
        "missing file": "nothing.npz",
        "unknown mode": "QR_TSD_MODE='typical'",
    }.items():
        assert sentence in said[name], (name, said[name])
