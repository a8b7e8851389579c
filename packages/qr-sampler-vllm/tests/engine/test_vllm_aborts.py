# SPDX-License-Identifier: Apache-2.0
"""What clients got and what the ledger has, token by token, however a request or its engine ends.

The engine is in a process of its own, as in the default ``LLM()`` and in ``vllm serve``: nobody
waits for its records, and in the end it is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any, NamedTuple

import pytest

BLOCK_BYTES = 64

SERVE = """
    import asyncio, signal
    from pathlib import Path
    import psutil
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    seen = {}

    def drawn():
        return [line.split() for line in Path(os.environ["QR_TEST_DRAWS"]).read_text().splitlines()]

    def recorded_bytes():
        (file,) = Path(os.environ["QR_LEDGER_DIR"]).glob("*.jsonl")
        lines = [json.loads(line) for line in file.read_bytes().split(b"\\n")[:-1]]
        return sum(line.get("block_bytes", 0) for line in lines)

    async def until(ready):
        deadline = time.monotonic() + 120
        while not ready():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def client(engine, key, leaves_at=10**9, **further):
        wishes = {"max_tokens": 230, "ignore_eos": True, **task["params"], **further}
        params = SamplingParams(
            temperature=1.0,
            output_kind=RequestOutputKind.DELTA,
            extra_args={"qr_request_key": key, "qr_sample_count": task["block_bytes"]},
            **wishes,
        )
        tokens = seen.setdefault(key, [])
        answers = engine.generate({"prompt_token_ids": [300, 301, 302]}, params, key)
        async for answer in answers:
            tokens.extend(answer.outputs[0].token_ids)
            if len(tokens) >= leaves_at:
                await answers.aclose()
                return

    async def started(engine, route):
        keys = [f"{route} {number}" for number in range(2)]
        clients = [asyncio.create_task(client(engine, key)) for key in keys]
        await until(lambda: all(len(seen.get(key, ())) >= 6 for key in keys))
        return clients

    async def end(engine):
        # What the engine can do itself is over; how it ends depends on the test.
        clients = await started(engine, task["end"])
        (process,) = {int(process) for process, _ in drawn()}
        if "tensor_parallel_size" in task["engine"]:
            # The first rank draws; its engine ends it.
            process = psutil.Process(process).ppid()
        if task["end"] == "SIGKILL":
            await engine.pause_generation(mode="keep", clear_cache=False)
            await until(lambda: recorded_bytes() == sum(len(data) // 2 for _, data in drawn()))
        os.kill(process, getattr(signal, task["end"]))
        await asyncio.gather(*clients, return_exceptions=True)
        engine.shutdown()

    async def main():
        engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=task["model"],
                enforce_eager=True,
                dtype="float32",
                max_model_len=256,
                max_num_seqs=4,
                num_gpu_blocks_override=64,
                **task["engine"],
            )
        )
        await asyncio.gather(*(client(engine, f"gone {n}", 5 + n) for n in range(3)))
        clients = await started(engine, "paused")
        await engine.pause_generation(mode="abort")
        await asyncio.gather(*clients)
        await engine.resume_generation()
        clients = await started(engine, "asleep")
        await engine.sleep(level=0, mode="abort")
        await asyncio.gather(*clients)
        await engine.wake_up(tags=["scheduling"])
        only = {"allowed_token_ids": [301], "stop_token_ids": [301], "min_tokens": 4}
        await client(engine, "masked", **only)
        await end(engine)

    if __name__ == "__main__":
        asyncio.run(main())
        result(seen)
"""

DRAFTS = {
    "speculative_config": {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 3,
        "prompt_lookup_min": 1,
    }
}
FEW = {"allowed_token_ids": [0, 300, 301]}
"""Of few tokens n-grams are guessed right often, so that steps have several."""


PLAIN: dict[str, Any] = {}
RANKS = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}


class Case(NamedTuple):
    """How an engine is made, and how it ends."""

    runner: str
    end: str
    engine: dict[str, Any] = PLAIN
    params: dict[str, Any] = PLAIN
    fallback_mode: str = "error"
    step_tokens: int = 1
    """The most tokens of a request in one step."""


CASES = [
    Case("v1", "SIGTERM", RANKS),
    Case("v2", "SIGKILL", DRAFTS, FEW, step_tokens=4),
    # Where requests may be ended, each has to name a token that ends it; this one is not allowed.
    Case("v2", "SIGINT", PLAIN, {**FEW, "stop_token_ids": [302]}, "end_request"),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.runner}-{case.end}" for case in CASES])
def test_no_client_has_a_token_without_a_record(
    offline_engine: Callable[[str], Any], draws_on_file: Any, case: Case
) -> None:
    engine = offline_engine(case.runner)
    task = {**case._asdict(), "block_bytes": BLOCK_BYTES}
    variables = {
        **draws_on_file.recording(),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "QR_FALLBACK_MODE": case.fallback_mode,
        **({"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if case.engine is RANKS else {}),
    }
    seen: dict[str, list[int]] = engine.result(SERVE, task, variables)
    lines = engine.lines()
    assert {key.split()[0] for key in seen} == {"gone", "paused", "asleep", "masked", case.end}
    for key, tokens in seen.items():
        recorded = standing(lines, key)
        certain = list(takewhile(lambda one: one[1], recorded))
        assert tokens, key
        assert tokens == [token_id for token_id, _ in recorded][: len(tokens)], key
        assert len(certain) <= len(tokens) <= len(recorded), key
        assert len(recorded) <= len(certain) + case.step_tokens, key
    spent = sum(line.get("block_bytes", 0) for line in lines)
    assert spent == sum(map(len, draws_on_file.draws()))
    assert_undecided(lines, seen["masked"], ends=case.fallback_mode == "end_request")


def assert_undecided(lines: list[dict[str, Any]], tokens: list[int], *, ends: bool) -> None:
    """Where a stop token is the only one allowed, nothing is before ``min_tokens``."""
    undecided = [line for line in lines if line["kind"] == "undecided"]
    assert {line["request_key"] for line in undecided} == {"masked"}
    assert {line["reason"] for line in undecided} == {"masked"}
    assert tokens == ([301] if ends else [0, 0, 0, 0, 301])
    assert [line["token_id"] for line in undecided] == ([301] if ends else [0, 0, 0, 0])


def standing(lines: list[dict[str, Any]], key: str) -> list[tuple[int, bool]]:
    """Returns the recorded tokens of a request, each with whether it was certainly emitted."""
    found: list[tuple[int, bool]] = []
    for line in lines:
        if line.get("request_key") != key:
            continue
        if line["kind"] in ("token", "undecided"):
            assert line["position"] == len(found), "records are not in order"
            found.append((line["token_id"], line["emitted"] is True))
        elif line["kind"] == "emission":
            token_id, certain = found[line["position"]]
            assert (token_id, certain) == (line["token_id"], False)
            found[line["position"]] = (token_id, True)
            assert line["emitted"], "nothing has taken a token back"
    return found
