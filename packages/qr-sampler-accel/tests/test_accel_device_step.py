# SPDX-License-Identifier: Apache-2.0
"""What happens when in a step on an accelerator, and that the tokens are the reference's.

Each test runs on CUDA where there is a GPU. Most run without one as well, on a stand-in that works
on the CPU and lags as far behind as a device can: what is launched is done only when somebody waits
for it, and memory of the host is read and written only then. Whoever looks at a result too early,
or writes over numbers that are still on their way, gets something wrong.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qr_sampler import ReferenceSelector, Rows, SamplingPipeline, Settings
from qr_sampler.testing import ConstantEntropySource
from qr_sampler.testing.selection_cases import LOGIT_KINDS, random_logits, random_parameters

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map_only  # noqa: E402

from qr_sampler_accel.device import transfer, workspace  # noqa: E402
from qr_sampler_accel.device.selector import TorchSelector  # noqa: E402
from qr_sampler_accel.device.transfer import Download, Upload  # noqa: E402

VOCAB = 3_000
SLOW_CYCLES = 200_000_000
"""A tenth of a second on a GPU of 2 GHz: far longer than it takes to launch a step."""

HOST_READS = {
    "_local_scalar_dense",
    "equal",
    "index",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique",
}
"""Operations that make the host wait for a device; ``index`` does with truth values."""

FILTERS = {
    "none": {},
    "all but typical-p": {"top_k": 40, "min_p": 0.01, "top_n_sigma": 2.0, "top_p": 0.9},
    "at temperature 1": {"top_k": 40, "top_p": 0.9, "truncate_first": True},
}


def sample_rows(
    pipeline: Any, logits: Any, lines: list[int], rows: Rows, selector: Any = None
) -> Any:
    """Decides *lines* and forces them in place, as a host does whose logits are on a device."""
    chosen = selector or pipeline.selector
    plan = pipeline.prepare(chosen.taken(logits, lines), rows)
    if not plan.lines.size:
        return None
    result = pipeline.complete(plan)
    result.selection.force(logits, [lines[line] for line in plan.lines])
    return result


class Mark:
    """An event of the stand-in."""

    def __init__(self, device: LaggingDevice) -> None:
        self._device = device
        self._token: object = None

    def record(self) -> None:
        self._token = object()
        self._device.queue.append((self._token, None))

    def query(self) -> bool:
        return not any(token is self._token for token, _ in self._device.queue)

    def synchronize(self) -> None:
        if self._token is not None and not self.query():
            self._device.waits += 1
            self._device.work(until=self._token)


class LaggingDevice(TorchDispatchMode):
    """Puts operations on CPU tensors off until somebody waits for an event behind them."""

    kernels: Any = "torch"
    name = "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.queue: deque[tuple[object, Callable[[], object] | None]] = deque()
        self.waits = 0
        self.allocations: list[str] = []
        self.copies: list[str] = []
        self.host_memory: set[int] = set()
        self._working = False

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = partial(func, *args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        written = [
            args[place] if place < len(args) else (kwargs or {})[each.name]
            for place, each in enumerate(func._schema.arguments)
            if each.alias_info is not None and each.alias_info.is_write
        ]
        views = any(each.alias_info is not None for each in func._schema.returns) and not written
        if self._working or views:
            return call()
        if name in HOST_READS:
            self.waits += 1
            self.work()
            return call()
        if name == "copy_":
            self._note_copy(args[0], args[1])
        if not written:
            self.allocations.append(name)
            return self._put_off_with_result(name, call)
        self.queue.append((name, call))
        return written[0]

    def work(self, until: object = None) -> None:
        """Does what was put off, as far as *until*."""
        self._working = True
        try:
            while self.queue:
                token, call = self.queue.popleft()
                if call is not None:
                    call()
                if token is until:
                    break
        finally:
            self._working = False

    def event(self, _device: Any = None) -> Mark:
        return Mark(self)

    def memory_of_the_host(self, size: int, _device: Any) -> Any:
        memory = torch.empty(size, dtype=torch.float64)
        self.host_memory.add(memory.untyped_storage().data_ptr())
        return memory

    def slow_write(self, target: Any, values: NDArray[np.float32]) -> Mark:
        """Launches work at the end of which *values* are in *target*; returns an event there."""
        target.copy_(torch.from_numpy(values))
        event = self.event()
        event.record()
        return event

    @contextmanager
    def working(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(transfer, "event_on", self.event)
        monkeypatch.setattr(transfer, "_host_memory", self.memory_of_the_host)
        with self:
            yield
            self.work()

    def sample(
        self, pipeline: Any, selector: Any, logits: Any, lines: list[int], rows: Rows
    ) -> Any:
        return sample_rows(pipeline, logits, lines, rows, selector)

    def _note_copy(self, target: Any, source: Any) -> None:
        ends = [each.untyped_storage().data_ptr() in self.host_memory for each in (source, target)]
        if any(ends):
            self.copies.append("to device" if ends[0] else "to host")

    def _put_off_with_result(self, name: str, call: partial[Any]) -> Any:
        """Returns memory for the result, which is known only when its turn has come."""
        if not any(isinstance(each, torch.Tensor) for each in tree_leaves(call.args)):
            return call()
        shapes = tree_map_only(torch.Tensor, lambda each: each.to("meta"), call.args)
        made = tree_map_only(
            torch.Tensor,
            lambda each: torch.empty_like(each, device="cpu"),
            call.func(*shapes, **call.keywords),
        )

        def fill() -> None:
            for target, source in zip(tree_leaves(made), tree_leaves(call()), strict=True):
                target.copy_(source)

        self.queue.append((name, fill))
        return made


@dataclass
class CudaDevice:
    kernels: Any
    name: str = "cuda"

    def slow_write(self, target: Any, values: NDArray[np.float32]) -> Any:
        source = torch.from_numpy(values).pin_memory()
        torch.cuda._sleep(SLOW_CYCLES)
        target.copy_(source, non_blocking=True)
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def working(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        yield
        torch.cuda.synchronize()

    def sample(
        self, pipeline: Any, selector: Any, logits: Any, lines: list[int], rows: Rows
    ) -> Any:
        return sample_rows(pipeline, logits, lines, rows)


Device = LaggingDevice | CudaDevice

ON_GPU = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")
ON_CUDA = [
    pytest.param(partial(CudaDevice, kernels), id=f"cuda-{kernels}", marks=needs_cuda)
    for kernels in ("torch", "triton")
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small operations on busy processors wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=[pytest.param(LaggingDevice, id="lagging"), *ON_CUDA])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    made: Device = request.param()
    with made.working(monkeypatch):
        yield made


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch) -> Iterator[LaggingDevice]:
    made = LaggingDevice()
    with made.working(monkeypatch):
        yield made


class AskedSource(ConstantEntropySource):
    """Notes what is true when it is asked."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__(131)
        self.look = look
        self.saw: list[object] = []
        self.asked_ns = 0

    def get_random_bytes(self, n: int) -> bytes:
        self.asked_ns = time.monotonic_ns()
        self.saw.append(self.look())
        return super().get_random_bytes(n)


def settings_for(strategy: str = "fixed", **filters: Any) -> Settings:
    changes = {"temperature_strategy": strategy, "fixed_temperature": 0.8, "sample_count": 8}
    return Settings.load(**changes, **filters)


def batch_of(rng: np.random.Generator, count: int, vocab_size: int = VOCAB) -> Any:
    return rng.normal(0.0, 4.0, (count, vocab_size)).astype(np.float32)


def tokens_of_reference(settings: Settings, logits: NDArray[np.float32], rows: Rows) -> list[int]:
    source = ConstantEntropySource(131)
    step = SamplingPipeline(settings, source, ReferenceSelector()).sample(logits, rows)
    assert step is not None
    tokens: list[int] = step.selection.token_ids.tolist()
    return tokens


class Bench:
    """A pipeline on a device, with a batch of logits that is written to slowly."""

    def __init__(self, device: Device, settings: Settings, count: int = 3) -> None:
        self.device, self.settings, self.count = device, settings, count
        self.selector = TorchSelector(device.kernels)
        self.source = AskedSource(lambda: None)
        self.pipeline = SamplingPipeline(settings, self.source, self.selector)
        self.rows = Rows([settings.sampling] * count)
        self.rng = np.random.default_rng(8)
        self.logits = torch.zeros((count, VOCAB), dtype=torch.float32, device=device.name)

    def step(self, values: NDArray[np.float32] | None = None) -> Any:
        """Samples from slowly written logits; the source notes whether they were there."""
        values = batch_of(self.rng, self.count) if values is None else values
        finished = self.device.slow_write(self.logits, values)
        self.source.look = finished.query
        assert not finished.query(), "the slow work is too fast for this test"
        lines = list(range(self.count))
        return self.device.sample(self.pipeline, self.selector, self.logits, lines, self.rows)


@pytest.mark.parametrize("strategy", ["fixed", "edt"])
def test_the_request_leaves_when_the_logits_exist(device: Device, strategy: str) -> None:
    bench = Bench(device, settings_for(strategy))
    for values in [batch_of(bench.rng, 3) for _ in range(3)]:
        step = bench.step(values)
        assert step.plan.logits_ready_ns <= step.draw.requested_ns <= bench.source.asked_ns
        expected = tokens_of_reference(bench.settings, values, bench.rows)
        assert step.selection.token_ids.tolist() == expected
    assert bench.source.saw == [True] * 3


def test_a_selector_that_does_not_wait_is_noticed(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: without the wait the source is asked too early."""
    bench = Bench(device, settings_for())
    bench.step()

    def without_waiting(download: Download) -> Any:
        return download._host[: 4 * bench.count].numpy().reshape(4, bench.count).copy()

    monkeypatch.setattr(Download, "wait", without_waiting)
    bench.step()
    assert bench.source.saw == [True, False]


@needs_cuda
@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_clocks_of_both_sides_agree_that_the_request_came_last(kernels: Any) -> None:
    """The request left no sooner than the slow kernel had taken the time that the GPU measured."""
    bench = Bench(CudaDevice(kernels), settings_for())
    bench.step()
    torch.cuda.synchronize()
    begin = torch.cuda.Event(enable_timing=True)
    before_ns = time.monotonic_ns()
    begin.record()
    finished = bench.device.slow_write(bench.logits, batch_of(bench.rng, 3))
    bench.device.sample(bench.pipeline, bench.selector, bench.logits, [0, 1, 2], bench.rows)
    torch.cuda.synchronize()
    slow_ms = begin.elapsed_time(finished)
    assert slow_ms > 10.0, "the slow kernel is too fast for this test"
    assert (bench.source.asked_ns - before_ns) / 1e6 >= 0.99 * slow_ms


def notes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns what a step does, in order: passes that are launched, waits, and the request."""
    seen: list[str] = []
    passes, wait = type(bench.selector._workspace.passes), Download.wait  # type: ignore[union-attr]
    histogram = passes.histogram

    def noted_histogram(*arguments: Any) -> None:
        seen.append("pass")
        histogram(*arguments)

    def noted_wait(download: Download) -> Any:
        seen.append("wait")
        return wait(download)

    monkeypatch.setattr(passes, "histogram", noted_histogram)
    monkeypatch.setattr(Download, "wait", noted_wait)
    bench.source.look = lambda: seen.append("request")
    return seen


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("fixed", ["pass", "wait", "request", "pass", "pass"]),
        # The temperature depends on what the device adds up.
        ("edt", ["wait", "pass", "request", "pass", "pass"]),
    ],
)
def test_what_needs_no_u_is_launched_before_the_request(
    device: Device, strategy: str, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(device, settings_for(strategy))
    bench.step().selection.fetch()
    seen = notes(bench, monkeypatch)
    bench.device.sample(bench.pipeline, bench.selector, bench.logits, [0, 1, 2], bench.rows)
    assert seen == order


def test_the_round_trip_hides_what_needs_no_u(lagging: LaggingDevice) -> None:
    """When the request leaves, the device still has that work before it."""
    bench = Bench(lagging, settings_for(top_k=40, top_p=0.9))
    bench.step()
    finished = lagging.slow_write(bench.logits, batch_of(bench.rng, 3))
    ahead: list[object] = []
    bench.source.look = lambda: ahead.extend(token for token, _ in lagging.queue)
    lagging.sample(bench.pipeline, bench.selector, bench.logits, [0, 1, 2], bench.rows)
    assert finished.query()
    assert {"scatter_add_", "cumsum"} <= {token for token in ahead if isinstance(token, str)}


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("strategy", ["fixed", "edt"])
def test_a_step_waits_once_copies_thrice_and_allocates_nothing(
    lagging: LaggingDevice, filters: str, strategy: str
) -> None:
    bench = Bench(lagging, settings_for(strategy, **FILTERS[filters]))
    for _ in range(2):
        bench.step().selection.fetch()
    lagging.waits = 0
    lagging.allocations.clear()
    lagging.copies.clear()
    bench.source.value = 99
    bench.step()
    assert lagging.waits == 1
    assert lagging.allocations == []
    # Sums to the host, u to the device, the outcome to the host; and parameters that have changed.
    changed = strategy == "edt" or "top_n_sigma" in FILTERS[filters]
    expected = ["to host", "to device", "to host"]
    assert lagging.copies == [*expected[:1], *(["to device"] if changed else []), *expected[1:]]


def test_the_stand_in_notices_reading_and_allocating(lagging: LaggingDevice) -> None:
    values = torch.zeros(3)
    values.add_(1.0)
    assert values.numpy().tolist() == [0.0] * 3
    assert lagging.allocations == ["zeros"]
    doubled = values * 2.0
    assert lagging.allocations == ["zeros", "mul"]
    assert float(doubled.sum()) == 6.0
    assert lagging.waits == 1


def test_after_reserving_the_first_step_allocates_nothing(lagging: LaggingDevice) -> None:
    bench = Bench(lagging, settings_for(top_k=9, top_p=0.9), count=5)
    bench.selector.reserve(5, VOCAB, torch.device("cpu"))
    lagging.allocations.clear()
    for count in (5, 3, 1, 4):
        logits, lines = bench.logits[:count], list(range(count))
        rows = Rows([bench.settings.sampling] * count)
        finished = lagging.slow_write(logits, batch_of(bench.rng, count))
        bench.source.look = finished.query
        lagging.sample(bench.pipeline, bench.selector, logits, lines, rows)
    # Some rows of a batch are left to the engine.
    lagging.slow_write(bench.logits, batch_of(bench.rng, 5))
    lagging.sample(
        bench.pipeline, bench.selector, bench.logits, [1, 4], Rows([bench.settings.sampling] * 2)
    )
    assert lagging.allocations == []


@needs_cuda
@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("filters", FILTERS)
def test_the_driver_is_not_asked_for_memory(kernels: Any, filters: str) -> None:
    """torch's reductions borrow small blocks from torch's own cache; nothing else is asked for."""
    bench = Bench(CudaDevice(kernels), settings_for(**FILTERS[filters]))
    bench.selector.reserve(bench.count, VOCAB, bench.logits.device)
    for _ in range(3):
        bench.step().selection.fetch()
    counters = (
        "segment.all.allocated",
        "allocation.large_pool.allocated",
        "allocation.all.current",
    )
    values = torch.from_numpy(batch_of(bench.rng, 3)).to("cuda")
    torch.cuda.synchronize()
    before = [torch.cuda.memory_stats()[name] for name in counters]
    for _ in range(20):
        bench.logits.copy_(values)
        sample_rows(bench.pipeline, bench.logits, [0, 1, 2], bench.rows)
    assert [torch.cuda.memory_stats()[name] for name in counters] == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", LOGIT_KINDS)
def test_tokens_are_those_of_the_reference(device: Device, kind: str, dtype: str) -> None:
    """Batches of changing size, with changing filters and temperatures, some rows left alone."""
    rng = np.random.default_rng([LOGIT_KINDS.index(kind), 17])
    selector = TorchSelector(device.kernels)
    outcomes = []
    for vocab_size in (700, 700, 40, 40, 40):
        count = int(rng.integers(1, 5))
        values = np.stack([random_logits(rng, kind, vocab_size) for _ in range(count + 1)])
        if dtype == "bfloat16":
            values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        strategy = str(rng.choice(["fixed", "edt"]))
        settings = settings_for(strategy)
        drawn = [random_parameters(rng, vocab_size) for _ in range(count)]
        change = {name: getattr(settings.sampling, name) for name in ("temperature_strategy",)}
        rows = Rows([each.model_copy(update={**change, "sample_count": 8}) for each in drawn])
        logits = torch.zeros(values.shape, dtype=getattr(torch, dtype), device=device.name)
        logits.copy_(torch.from_numpy(values))
        lines = [int(line) for line in rng.permutation(count + 1)[:count]]
        source = ConstantEntropySource(int(rng.integers(90, 160)))
        pipeline = SamplingPipeline(settings, source, selector)
        step = device.sample(pipeline, selector, logits, lines, rows)
        reference = SamplingPipeline(settings, source, ReferenceSelector())
        outcomes.append((step, reference.sample(values[lines], rows), logits, values, lines))
    for step, expected, logits, values, lines in outcomes:
        assert expected is not None
        for name in ("token_ids", "rank", "candidates"):
            found = getattr(step.selection, name).tolist()
            assert found == getattr(expected.selection, name).tolist(), name
        forced = np.where(np.isin(np.arange(len(values)), lines)[:, None], -np.inf, values)
        forced[lines, expected.selection.token_ids] = 0.0
        on_host = torch.empty(logits.shape)
        on_host.copy_(logits)
        if isinstance(device, LaggingDevice):
            device.work()
        np.testing.assert_array_equal(on_host.numpy(), forced)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("filters", [{"top_p": 0.5, "typical_p": 0.5}, {"top_k": 3, "min_p": 0.1}])
def test_rows_without_a_finite_maximum_harm_nobody(
    device: Device, broken: float, filters: dict[str, Any]
) -> None:
    """Their work has been launched before that is known."""
    bench = Bench(device, settings_for(**filters), count=4)
    values = batch_of(bench.rng, 4)
    values[1] = broken
    if not broken < 0.0:
        values[3, 31] = broken
    step = bench.step(values)
    expected = tokens_of_reference(bench.settings, values, bench.rows)
    assert step.selection.token_ids.tolist() == expected
    assert len(expected) == (3 if broken < 0.0 else 2)


def send_three(device: LaggingDevice) -> list[list[float]]:
    """Returns what three uploads bring that were sent before the device did anything."""
    upload, arrived = Upload(2, torch.device("cpu")), torch.zeros((3, 2), dtype=torch.float64)
    for place in range(3):
        arrived[place].copy_(upload.send(np.full(2, place + 1.0)))
    device.work()
    brought: list[list[float]] = arrived.tolist()
    return brought


def test_numbers_on_their_way_are_not_written_over(
    lagging: LaggingDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send_three(lagging) == [[1.0] * 2, [2.0] * 2, [3.0] * 2]
    monkeypatch.setattr(transfer, "event_on", lambda _: None)
    assert send_three(lagging) == [[3.0] * 2, [2.0] * 2, [3.0] * 2], "the stand-in sees no races"


def test_what_the_device_has_is_not_sent_again(lagging: LaggingDevice) -> None:
    upload = Upload(4, torch.device("cpu"))
    for values in ([1.0, np.nan], [1.0, np.nan], [2.0, np.nan], [2.0]):
        sent = upload.send(np.array(values))
        lagging.work()
        np.testing.assert_array_equal(sent.numpy(), values)
    assert lagging.copies == ["to device"] * 3
    # 2.0 as a whole number has other bits.
    assert upload.send(np.array([2])).dtype == torch.int64
    assert lagging.copies == ["to device"] * 4


def test_results_of_steps_in_a_row_are_told_apart(device: Device) -> None:
    """Nobody reads a result before the next step has been launched."""
    bench = Bench(device, settings_for())
    batches = [batch_of(bench.rng, 3) for _ in range(4)]
    steps = [bench.step(values) for values in batches]
    for step, values in zip(steps, batches, strict=True):
        expected = tokens_of_reference(bench.settings, values, bench.rows)
        assert step.selection.token_ids.tolist() == expected


def test_an_event_is_made_on_devices_that_run_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        Event = object

    assert transfer.event_on(torch.device("cpu")) is None
    monkeypatch.setattr(torch, "get_device_module", lambda device: {"xpu": Module}[device.type])
    assert type(transfer.event_on(torch.device("xpu"))) is object
    assert workspace.OUTCOME < workspace.SUMS
