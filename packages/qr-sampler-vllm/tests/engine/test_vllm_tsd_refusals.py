# SPDX-License-Identifier: Apache-2.0
"""Engines that cannot be served rightly do not start, and say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

REFUSED = """
    said = {}
    for case in task["cases"]:
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


SENTENCES = {
    "worker alone": "give speculative_config",
    "worker with n-grams": "give speculative_config",
    "drafter alone": "set worker_cls to",
    "other vocabulary": "proposes among 1000 tokens and the model has 2048",
}


@pytest.mark.parametrize(
    "names",
    [
        # Whoever gets as far as a device comes last: vLLM does not start twice after that.
        ("worker alone", "worker with n-grams", "drafter alone"),
        ("other vocabulary",),
    ],
)
def test_engines_that_cannot_be_right_do_not_start(
    offline_engine: Callable[[str], Any], tsd: Any, names: tuple[str, ...]
) -> None:
    tsd.save({300: 0.5, 301: 0.4}, vocab_size=1000)
    worker = {"worker_cls": tsd.options["worker_cls"]}
    ngram = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
    engines = {
        "worker alone": worker,
        "worker with n-grams": {**worker, "speculative_config": ngram},
        "drafter alone": {"speculative_config": tsd.options["speculative_config"]},
        "other vocabulary": tsd.options,
    }
    cases = [{"name": name, "engine": engines[name]} for name in names]
    script, environment = tsd.script(REFUSED), tsd.environment("exact_match")
    said = offline_engine("v1").result(script, {"cases": cases}, environment)
    for name in names:
        assert SENTENCES[name] in said[name]
