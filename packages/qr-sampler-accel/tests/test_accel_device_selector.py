# SPDX-License-Identifier: Apache-2.0
"""The torch selector picks what the reference selector picks, on every device and kernel.

Each test runs with torch operations on the CPU, and on CUDA with torch operations and Triton
kernels where there is a GPU. Without one the kernels run in Triton's interpreter, which works only
in a process that asks for it before the first import of Triton:
:func:`test_kernels_equal_the_reference_in_the_interpreter` starts one for the tests of this file.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qr_sampler import (
    ReferenceSelector,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Settings,
)
from qr_sampler.amplification import U_MAX, U_MIN
from qr_sampler.selection.reference import ReferencePlan
from qr_sampler.temperature import STATISTICS_STEP
from qr_sampler.testing import ConstantEntropySource
from qr_sampler.testing.law_contract import check_same_laws

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")

from qr_sampler_accel.device import statistics  # noqa: E402
from qr_sampler_accel.device.selector import TorchSelector  # noqa: E402

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"

KINDS = (
    "normal",
    "flat",
    "uniform",
    "peaked",
    "ties",
    "signed zeros",
    "huge",
    "near the grid",
    "bfloat16",
    "masked",
    "one survivor",
    "adjacent",
)


@dataclass(frozen=True)
class Setup:
    device: str
    kernels: Any

    @property
    def interpreted(self) -> bool:
        return (self.device, self.kernels) == ("cpu", "triton")

    def selector(self) -> TorchSelector:
        return TorchSelector(self.kernels)

    def tensor(self, logits: NDArray[np.float32]) -> Any:
        return torch.from_numpy(logits.copy()).to(self.device)

    def smaller(self, usual: int, interpreted: int) -> int:
        """The interpreter takes milliseconds for a thousand tokens."""
        return interpreted if self.interpreted else usual


SETUPS = [
    pytest.param(Setup("cpu", "torch"), id="cpu-torch"),
    pytest.param(
        Setup("cpu", "triton"),
        id="cpu-interpreted",
        marks=pytest.mark.skipif(not INTERPRETING, reason="runs in a process of its own"),
    ),
    *(
        pytest.param(
            Setup("cuda", kernels),
            id=f"cuda-{kernels}",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        )
        for kernels in ("torch", "triton")
    ),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small operations on busy processors wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=SETUPS)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    # The interpreter computes with NumPy, which warns where a distance exceeds float32 or is none.
    silence: Any = "ignore" if request.param.interpreted else "warn"
    with np.errstate(over=silence, invalid=silence):
        yield request.param


def random_row(rng: np.random.Generator, kind: str, vocab_size: int) -> NDArray[np.float32]:
    row = rng.normal(0.0, 4.0, vocab_size)
    if kind == "flat":
        row = rng.normal(0.0, 1e-6, vocab_size)
    elif kind == "uniform":
        row = np.full(vocab_size, rng.normal())
    elif kind == "peaked":
        row[rng.integers(vocab_size)] += rng.choice([10.0, 24.0, 25.0, 200.0])
    elif kind == "ties":
        row = rng.integers(-2, 3, vocab_size).astype(np.float64)
    elif kind == "signed zeros":
        row = rng.choice([0.0, -0.0, -1.0, 1e-45, -1e-45], vocab_size)
    elif kind == "huge":
        row = rng.choice([3e38, -3e38, 1e30, 0.0, -1e30], vocab_size)
    elif kind == "near the grid":
        # exp() lands around 2**-36, where a mass becomes zero.
        row = rng.choice([0.0, -24.26, -24.95, -24.9533, -24.96, -8.3177, -8.32], vocab_size)
    values: NDArray[np.float32] = row.astype(np.float32)
    if kind == "bfloat16":
        values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    elif kind == "masked":
        values[rng.random(vocab_size) < 0.7] = -np.inf
        values[rng.integers(vocab_size)] = 0.5
    elif kind == "one survivor":
        values[:] = -np.inf
        values[rng.integers(vocab_size)] = rng.normal()
    elif kind == "adjacent":
        values = np.nextafter(np.float32(1.0), np.float32(2.0)) + np.zeros_like(values)
        values[:: max(1, vocab_size // 3)] = 1.0
    return values


def random_parameters(rng: np.random.Generator, vocab_size: int) -> SamplingParameters:
    def maybe(value: Any, off: Any, share: float = 0.4) -> Any:
        return value if rng.random() < share else off

    few = int(rng.integers(1, 60))
    return SamplingParameters(
        top_k=maybe(maybe(few, int(rng.integers(1, 2 * vocab_size + 1))), 0),
        min_p=maybe(float(rng.choice([rng.random(), rng.random() ** 8, 1.0, 1e-12, 0.5])), 0.0),
        top_p=maybe(float(rng.choice([1.0 - rng.random(), 1e-300, 0.5, 1.0 - 2**-53])), 1.0),
        truncate_first=bool(rng.random() < 0.4),
        top_n_sigma=maybe(float(rng.choice([3.0 * rng.random(), 1e-6, 1e6])), 0.0),
        typical_p=maybe(float(rng.choice([1.0 - rng.random(), 0.5])), 1.0, 0.2),
    )


def random_temperatures(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    spread = 10.0 ** rng.uniform(-3.0, 3.0, count)
    return np.where(rng.random(count) < 0.4, rng.choice([1e-3, 0.7, 1.0, 1.0, 1e3], count), spread)


class Pair:
    """Both selectors, prepared for the same rows."""

    def __init__(
        self,
        setup: Setup,
        logits: NDArray[np.float32],
        rows: Rows,
        temperature: NDArray[np.float64],
        selector: TorchSelector | None = None,
        *,
        known: bool = False,
    ) -> None:
        self.selector = selector or setup.selector()
        self.reference = ReferenceSelector()
        at_first = temperature if known else np.full(len(rows), np.nan)
        settle = np.full(len(rows), 2)
        self.measured = self.selector.measure(setup.tensor(logits), rows, at_first, settle)
        self.expected = self.reference.measure(logits, rows, at_first, settle)
        temperature = temperature[self.expected.lines]
        self.plan = self.selector.prepare(self.measured, temperature)
        self.expected_plan: ReferencePlan = self.reference.prepare(self.expected, temperature)

    def assert_same_statistics(self) -> None:
        assert self.measured.lines.tolist() == self.expected.lines.tolist()
        assert self.measured.rows.parameters == self.expected.rows.parameters
        assert self.measured.vocab_size == self.expected.vocab_size
        for name in ("entropy_nats", "varentropy_nats2"):
            mine, other = (getattr(side, name) for side in (self.measured, self.expected))
            np.testing.assert_array_equal(
                np.rint(mine / STATISTICS_STEP), np.rint(other / STATISTICS_STEP)
            )
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(self.measured.logit_deviation, self.expected.logit_deviation)

    def assert_same_choice(self, u: NDArray[np.float64]) -> None:
        mine = self.selector.pick(self.plan, u)
        other = self.reference.pick(self.expected_plan, u)
        for name in ("token_ids", "rank", "candidates"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name), str((name, u)))
        np.testing.assert_allclose(mine.probability, other.probability, rtol=1e-12)

    def edges(self, rank: NDArray[np.intp]) -> NDArray[np.float64]:
        """Returns the u at which the choice moves on from *rank*, to the nearest float64."""
        plan, lines = self.expected_plan, np.arange(len(rank))
        below = plan.cumulative[lines, plan.start]
        reached = plan.cumulative[lines, np.minimum(rank + 1, plan.stop)]
        edges = (reached - below) / (plan.cumulative[lines, plan.stop] - below)
        inside: NDArray[np.float64] = np.clip(edges, U_MIN, U_MAX)
        return inside

    def interesting(self, rng: np.random.Generator, count: int) -> Iterator[NDArray[np.float64]]:
        rows = len(self.expected.lines)
        for _ in range(count):
            edges = self.edges(rng.integers(self.expected_plan.start, self.expected_plan.stop))
            towards = rng.choice([0.0, 1.0, 2.0], rows)
            moved = np.where(towards == 2.0, edges, np.nextafter(edges, towards))
            yield np.clip(moved, U_MIN, U_MAX)
        yield rng.random(rows)
        yield from (np.full(rows, u) for u in (U_MIN, U_MAX))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_reference(setup: Setup, kind: str) -> None:
    rng = np.random.default_rng([KINDS.index(kind), 11])
    selector = setup.selector()
    for vocab_size in (1_100,) if setup.interpreted else (1, 2, 5, 100, 3_000, 20_000):
        for _ in range(2 if vocab_size < 1_000 else 1):
            count = int(rng.integers(1, setup.smaller(6, 3)))
            logits = np.stack([random_row(rng, kind, vocab_size) for _ in range(count)])
            rows = Rows([random_parameters(rng, vocab_size) for _ in range(count)])
            temperature, known = random_temperatures(rng, count), bool(rng.integers(2))
            pair = Pair(setup, logits, rows, temperature, selector, known=known)
            pair.assert_same_statistics()
            for u in islice(pair.interesting(rng, count=4), setup.smaller(7, 2)):
                pair.assert_same_choice(u)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"top_k": 17},
        {"top_p": 0.9},
        {"min_p": 0.02},
        {"top_n_sigma": 1.0},
        {"typical_p": 0.8},
        {"top_k": 30, "min_p": 0.01, "top_n_sigma": 2.0, "top_p": 0.95, "typical_p": 0.9},
        {"top_p": 0.9, "truncate_first": True},
        {"top_k": 20, "min_p": 0.05, "top_p": 0.99, "truncate_first": True},
    ],
    ids=lambda parameters: "+".join(parameters) or "no filter",
)
def test_equals_the_reference_at_every_boundary(setup: Setup, parameters: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    size, step = 60, setup.smaller(1, 60)
    kinds = ("normal", "ties", "bfloat16", "masked", "near the grid")[: setup.smaller(5, 2)]
    logits = np.stack([random_row(rng, kind, size) for kind in kinds])
    rows = Rows([SamplingParameters(**parameters)] * len(kinds))
    temperature = np.array([1.0, 0.7, 1.5, 3.0, 1.1])[: len(kinds)]
    pair = Pair(setup, logits, rows, temperature, known=True)
    # The threshold of top-n-sigma is the only thing that waits for the statistics.
    assert (pair.measured.plan is None) == ("top_n_sigma" in parameters)
    for rank in range(0, size, step):
        edges = pair.edges(pair.expected_plan.start + rank)
        for u in (np.nextafter(edges, 0.0), edges, np.nextafter(edges, 1.0)):
            pair.assert_same_choice(np.clip(u, U_MIN, U_MAX))


def test_equals_the_reference_on_a_real_vocabulary(setup: Setup) -> None:
    if setup.interpreted:
        pytest.skip("takes minutes in the interpreter")
    rng = np.random.default_rng(8)
    logits = np.stack([random_row(rng, kind, 151_936) for kind in ("normal", "bfloat16", "flat")])
    together = SamplingParameters(top_k=5_000, top_p=0.9, min_p=1e-4, typical_p=0.9)
    rows = Rows([SamplingParameters(), together, SamplingParameters(top_n_sigma=2.5)])
    pair = Pair(setup, logits, rows, np.array([1.0, 0.8, 1.3]))
    pair.assert_same_statistics()
    for u in pair.interesting(rng, count=4):
        pair.assert_same_choice(u)


def test_batches_larger_than_a_piece_are_worked_on_piece_by_piece(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qr_sampler_accel.device.passes.PIECE_ELEMENTS", 250)
    rng = np.random.default_rng(4)
    logits = np.stack([random_row(rng, "normal", 100) for _ in range(7)])
    rows = Rows([random_parameters(rng, 100) for _ in range(6)] + [SamplingParameters()])
    pair = Pair(setup, logits, rows, random_temperatures(rng, 7))
    assert pair.plan.work.plain.piece == 2
    pair.assert_same_statistics()
    for u in islice(pair.interesting(rng, count=6), setup.smaller(9, 1)):
        pair.assert_same_choice(u)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_rows_without_a_finite_maximum_are_left_out(
    setup: Setup, broken: float, known: bool
) -> None:
    rng = np.random.default_rng(6)
    logits = np.stack([random_row(rng, "normal", 50) for _ in range(4)])
    logits[0] = broken
    if not broken < 0.0:
        logits[2, 31] = broken
    rows = Rows([random_parameters(rng, 50) for _ in range(4)])
    pair = Pair(setup, logits, rows, np.ones(4), known=known)
    assert pair.measured.plan is None
    pair.assert_same_statistics()
    for u in islice(pair.interesting(rng, count=4), setup.smaller(7, 1)):
        pair.assert_same_choice(u)


def test_a_batch_without_a_decidable_row_gives_an_empty_result(setup: Setup) -> None:
    selector = setup.selector()
    logits = setup.tensor(np.full((2, 9), -np.inf, dtype=np.float32))
    measured = selector.measure(logits, Rows([SamplingParameters(top_p=0.5)] * 2), np.ones(2))
    assert measured.lines.size == 0
    result = selector.pick(selector.prepare(measured, np.empty(0)), np.empty(0))
    assert result.token_ids.shape == result.probability.shape == (0,)


@pytest.mark.parametrize("settle", [0, 1, 2])
def test_moments_in_doubt_are_settled_on_the_host(
    setup: Setup, settle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error bound that covers everything, every value is in doubt."""
    settled = []

    def row_moments(distance: Any) -> Any:
        settled.append(distance.size)
        return exact(distance)

    exact = statistics.row_moments
    monkeypatch.setattr(statistics, "FLOAT64_ERROR", 1.0)
    monkeypatch.setattr(statistics, "row_moments", row_moments)
    rng = np.random.default_rng(7)
    logits = np.stack([random_row(rng, "normal", 80) for _ in range(3)])
    rows = Rows([SamplingParameters(top_n_sigma=1.0)] * 3)
    selector, counts = setup.selector(), np.array([0, settle, 0])
    measured = selector.measure(setup.tensor(logits), rows, np.ones(3), counts)
    expected = ReferenceSelector().measure(logits, rows, np.ones(3))
    assert settled == [80] * (settle > 0)
    np.testing.assert_allclose(measured.entropy_nats, expected.entropy_nats, rtol=1e-12)
    np.testing.assert_array_equal(measured.logit_deviation, expected.logit_deviation)


@pytest.mark.parametrize("strategy", ["fixed", "edt"])
def test_the_pipeline_takes_tensors(setup: Setup, strategy: str) -> None:
    rng = np.random.default_rng(12)
    logits = np.stack([random_row(rng, kind, 70) for kind in ("normal", "one survivor", "flat")])
    settings = Settings.load(sample_count=8, temperature_strategy=strategy, top_p=0.9)
    rows = Rows([settings.sampling] * 3)
    steps = []
    for selector, batch in ((setup.selector(), setup.tensor(logits)), (None, logits)):
        pipeline = SamplingPipeline(settings, ConstantEntropySource(131), selector)
        steps.append(pipeline.sample(batch, rows))
    mine, other = steps
    assert mine is not None
    assert other is not None
    np.testing.assert_array_equal(
        mine.plan.temperature.temperature, other.plan.temperature.temperature
    )
    np.testing.assert_array_equal(mine.selection.token_ids, other.selection.token_ids)
    np.testing.assert_array_equal(mine.selection.rank, other.selection.rank)
    assert mine.plan.logits_ready_ns <= mine.draw.requested_ns


def test_results_outlive_the_next_step(setup: Setup) -> None:
    rng = np.random.default_rng(9)
    selector, results, expected = setup.selector(), [], []
    for _ in range(3):
        logits = np.stack([random_row(rng, "normal", 40) for _ in range(2)])
        rows = Rows([SamplingParameters()] * 2)
        pair = Pair(setup, logits, rows, np.ones(2), selector)
        u = rng.random(2)
        results.append(selector.pick(pair.plan, u))
        expected.append(pair.reference.pick(pair.expected_plan, u))
    for mine, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(mine.token_ids, other.token_ids)
        np.testing.assert_array_equal(mine.rank, other.rank)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forcing_writes_whole_rows_in_place(setup: Setup, dtype: Any) -> None:
    rng = np.random.default_rng(10)
    pair = Pair(
        setup,
        np.stack([random_row(rng, "normal", 30) for _ in range(2)]),
        Rows([SamplingParameters()] * 2),
        np.ones(2),
    )
    result = pair.selector.pick(pair.plan, np.array([0.3, 0.9]))
    logits = torch.ones((4, 30), dtype=dtype, device=setup.device)
    address = logits.data_ptr()
    result.force(logits, [3, 1])
    expected = torch.full((4, 30), -torch.inf, dtype=dtype)
    expected[[0, 2]] = 1.0
    expected[[3, 1], torch.from_numpy(result.token_ids)] = 0.0
    assert torch.equal(logits.cpu(), expected)
    assert logits.data_ptr() == address


def test_a_caller_may_fill_temperatures_in_place(setup: Setup) -> None:
    logits = np.random.default_rng(6).normal(size=(2, 300)).astype(np.float32)
    rows, temperature = Rows([SamplingParameters()] * 2), np.ones(2)
    selector, reference = setup.selector(), ReferenceSelector()
    measured = selector.measure(setup.tensor(logits), rows, temperature)
    temperature[:] = 0.2
    plan = selector.prepare(measured, temperature)
    expected = reference.prepare(reference.measure(logits, rows, temperature), temperature)
    for u in (0.1, 0.5, 0.9):
        found = selector.pick(plan, np.full(2, u)).token_ids
        assert found.tolist() == reference.pick(expected, np.full(2, u)).token_ids.tolist()


def test_picking_before_measuring_is_an_error(setup: Setup) -> None:
    pair = Pair(setup, np.zeros((1, 3), np.float32), Rows([SamplingParameters()]), np.ones(1))
    with pytest.raises(RuntimeError, match="nothing has been measured"):
        setup.selector().pick(pair.plan, np.array([0.5]))


@pytest.mark.parametrize("kind", KINDS)
def test_laws_are_those_of_the_reference(setup: Setup, kind: str) -> None:
    if setup.interpreted and kind not in ("masked", "signed zeros", "ties"):
        pytest.skip("the interpreter is slow, and these kinds concern the kernel most")
    rng = np.random.default_rng([KINDS.index(kind), 13])
    selector = setup.selector()
    for size in (1_100,) if setup.interpreted else (1, 2, 5, 100, 3_000):
        logits = np.stack([random_row(rng, kind, size) for _ in range(setup.smaller(3, 2))])
        rows = Rows([random_parameters(rng, size) for _ in logits])
        pair = Pair(setup, logits, rows, random_temperatures(rng, len(logits)), selector)
        right = pair.reference.laws(pair.expected_plan)
        check_same_laws(selector.laws(pair.plan), right, rng)


def test_laws_of_a_step_with_drafts_at_the_size_of_a_language_model(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five rows, of which one is masked altogether, in pieces of two; with every kind of cut."""
    size = setup.smaller(151_936, 2_000)
    monkeypatch.setattr("qr_sampler_accel.device.passes.PIECE_ELEMENTS", 2 * size)
    rng = np.random.default_rng(14)
    logits = np.stack([random_row(rng, "bfloat16", size) for _ in range(5)])
    logits[2] = -np.inf
    filters: list[dict[str, Any]] = [{}, {"top_k": 50}, {}, {"top_p": 0.9}, {"typical_p": 0.7}]
    rows = Rows([SamplingParameters.model_validate(each) for each in filters])
    pair = Pair(setup, logits, rows, np.full(5, 0.7))
    right = pair.reference.laws(pair.expected_plan)
    check_same_laws(pair.selector.laws(pair.plan), right, rng)


def test_a_token_may_be_picked_after_laws_were_asked(setup: Setup) -> None:
    rng = np.random.default_rng(15)
    logits = np.stack([random_row(rng, "ties", 300) for _ in range(3)])
    rows = Rows([SamplingParameters(top_k=40, typical_p=0.8)] * 3)
    pair = Pair(setup, logits, rows, np.ones(3))
    laws = pair.selector.laws(pair.plan)
    right = pair.reference.laws(pair.expected_plan)
    pair.assert_same_choice(rng.random(3))
    check_same_laws(laws, right, rng)


def test_kernels_equal_the_reference_in_the_interpreter() -> None:
    if INTERPRETING:
        pytest.skip("this is the process that interprets")
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton, which the vllm session installs")
    command = [sys.executable, "-m", "pytest", "-q", "-k", "interpreted", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert " passed" in process.stdout
