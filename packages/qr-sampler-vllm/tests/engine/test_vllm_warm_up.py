# SPDX-License-Identifier: Apache-2.0
"""vLLM's warm-up under Model Runner V2 costs no entropy, whatever its requests look like.

Up to vLLM 0.32 this runner warms up once, with unusual parameters, and on accelerators only. Since
0.33 it does so everywhere, and with drafts a second time, with ``SamplingParams(temperature=0)``,
which a client may send as well. The script has every version do so, and a third time with a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SCRIPT = """
    from vllm import SamplingParams
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu import warmup
    import qr_sampler_vllm

    made_up = []
    first, unusual = warmup.warmup_kernels, SamplingParams.for_sampler_warmup

    def noted(make):
        def parameters():
            made_up.append(make())
            return made_up[-1]
        return staticmethod(parameters)

    def repeated(*arguments, **options):
        ordinary = SamplingParams(temperature=0.0)
        seeded = SamplingParams(temperature=1.0, seed=1)
        for make in (unusual, lambda: ordinary, lambda: seeded):
            SamplingParams.for_sampler_warmup = noted(make)
            first(*arguments, **options)
        SamplingParams.for_sampler_warmup = staticmethod(unusual)

    started = CPUWorker.compile_or_warm_up_model

    def as_on_accelerators(worker):
        times = started(worker)
        if not made_up:
            warmup.warmup_kernels(worker.model_runner, worker.execute_model, worker.sample_tokens)
        return times

    warmup.warmup_kernels = repeated
    CPUWorker.compile_or_warm_up_model = as_on_accelerators
    llm = engine(
        max_num_seqs=1,
        skip_tokenizer_init=True,
        enforce_eager=False,
        compilation_config={"mode": 0, "cudagraph_mode": "NONE"},
        speculative_config={
            "method": "ngram",
            "num_speculative_tokens": 1,
            "prompt_lookup_max": 2,
            "prompt_lookup_min": 1,
        },
    )
    prompt = {"prompt_token_ids": [300, 301, 300]}

    def tokens(**options):
        params = SamplingParams(detokenize=False, **options)
        (output,) = llm.generate([prompt], params, use_tqdm=False)
        return [list(sample.token_ids) for sample in output.outputs]

    # Without a tokenizer vLLM adds no end-of-text token, and nothing tells these from warm-ups.
    emitted = tokens(temperature=0.0, max_tokens=2)
    emitted += tokens(temperature=1.0, seed=1, n=2, max_tokens=3)
    # A front end that does not have the plugin asks it nothing.
    llm.llm_engine.input_processor.validate_logits_processors_params = lambda params: None
    emitted += tokens(temperature=0.0, max_tokens=2)
    qr_sampler_vllm.flush_records()
    result({"emitted": emitted, "made_up": len(made_up)})
"""


def test_warm_ups_draw_nothing_and_whatever_clients_send_is_decided(
    offline_engine: Callable[[str], Any], draws_on_file: Any
) -> None:
    engine = offline_engine("v2")
    result = engine.result(SCRIPT, {}, draws_on_file.recording())
    assert result["made_up"] >= 3
    lines = engine.lines()
    sequences: dict[str, list[int]] = {}
    for line in lines:
        if line["kind"] == "token":
            sequences.setdefault(line["sequence"], []).append(line["token_id"])
    assert sorted(sequences.values()) == sorted(result["emitted"])
    recorded = sum(line.get("block_bytes", 0) for line in lines)
    assert recorded == sum(map(len, draws_on_file.draws())) > 0
