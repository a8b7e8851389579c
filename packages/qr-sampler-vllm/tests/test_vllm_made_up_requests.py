# SPDX-License-Identifier: Apache-2.0
"""Requests that vLLM makes up are told from those of clients by who brings them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler_vllm.requests.made_up_requests import is_warming_up
from qr_sampler_vllm.runners.follower import Follower

SERVED = (
    ("vllm.v1.engine.core", "step"),
    ("vllm.v1.executor.uniproc_executor", "execute_model"),
    ("vllm.v1.worker.gpu_worker", "execute_model"),
    ("vllm.v1.worker.gpu.model_runner", "add_requests"),
)
"""How the request of a client arrives: module and function, the caller first."""

GETTING_READY = (
    ("vllm.v1.worker.gpu_worker", "compile_or_warm_up_model"),
    ("vllm.v1.worker.gpu.warmup", "_prepare"),
    ("vllm.model_executor.warmup.attention_warmup", "run"),
    ("vllm.v1.worker.cpu_model_runner", "warming_up_model"),
    ("vllm.v1.worker.gpu.model_runner", "_dummy_sampler_run"),
    ("vllm.v1.worker.gpu.model_runner", "profile_run"),
)
"""Functions of vLLM's workers in which it makes requests up."""


def function_of(module: str, name: str) -> Callable[[Callable[[], Any]], Any]:
    """Returns a function called *name*, of a module called *module*, which calls its argument."""
    scope: dict[str, Any] = {"__name__": module}
    exec(f"def {name}(call):\n    return call()", scope)
    function: Callable[[Callable[[], Any]], Any] = scope[name]
    return function


def reached_through(frames: Sequence[tuple[str, str]]) -> bool:
    """Returns what is said of a request that arrives through *frames*."""
    if not frames:
        return is_warming_up()
    return bool(function_of(*frames[0])(lambda: reached_through(frames[1:])))


def test_a_request_is_a_clients_unless_the_worker_gets_ready() -> None:
    assert not is_warming_up()
    assert not reached_through(SERVED)


@pytest.mark.parametrize("place", GETTING_READY)
def test_what_a_worker_asks_while_it_gets_ready_is_made_up(place: tuple[str, str]) -> None:
    assert reached_through([*SERVED[:2], place, *SERVED[2:]])


@pytest.mark.parametrize(
    "program", [("__main__", "warmup"), ("vllm.benchmarks.latency", "warmup_kernels")]
)
def test_how_a_program_calls_its_own_functions_does_not_matter(program: tuple[str, str]) -> None:
    """An engine may live in the process of its clients, who warm it up with real requests."""
    assert not reached_through([program, *SERVED])


def test_other_ranks_say_the_same_of_what_is_made_up() -> None:
    follower = Follower(None)  # type: ignore[arg-type]
    warm_up = function_of("vllm.v1.worker.gpu.warmup", "warmup_kernels")
    assert not warm_up(lambda: follower.add_request(0, None))


def test_other_ranks_take_part_in_the_end_of_what_cannot_be_served() -> None:
    """The first rank ends a request that was admitted and cannot be served; no rank raises."""
    params = SimpleNamespace(
        temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, extra_args={"qr_top_k": "abc"}
    )
    assert Follower(None).add_request(0, params)  # type: ignore[arg-type]
