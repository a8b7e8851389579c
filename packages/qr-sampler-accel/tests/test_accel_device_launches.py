# SPDX-License-Identifier: Apache-2.0
"""One wait per step, no allocation in steady state, and kernels without fused operations."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler import Rows, SamplingParameters
from qr_sampler.selection import Residual, SparseLaw

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from qr_sampler_accel.device.selector import TorchSelector  # noqa: E402
from qr_sampler_accel.device.transfer import Download  # noqa: E402
from qr_sampler_accel.device.workspace import Workspace, kernel_passes  # noqa: E402

VOCAB = 30_000
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

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

FILTERS = {
    "none": SamplingParameters(),
    "all but typical-p": SamplingParameters(top_k=40, min_p=0.01, top_n_sigma=2.0, top_p=0.9),
    "at temperature 1": SamplingParameters(top_k=40, top_p=0.9, truncate_first=True),
}


class Recorder(TorchDispatchMode):
    """Notes every operation, and which of them need memory for their result."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.allocating: list[str] = []

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.names.add(name)
        # The others return a view, or what they have written to.
        if any(each.alias_info is None for each in func._schema.returns):
            self.allocating.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small operations on busy processors wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def step(selector: TorchSelector, logits: Any, rows: Rows, u: float) -> Any:
    count = len(rows)
    measured = selector.measure(logits, rows, np.full(count, np.nan))
    plan = selector.prepare(measured, np.full(count, 0.8))
    return selector.pick(plan, np.full(count, u))


def random_logits(count: int, device: str = "cpu") -> Any:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((count, VOCAB), generator=generator).mul_(4.0).to(device)


@pytest.mark.parametrize("lines", [[0, 1, 2], [2, 0, 1]])
@pytest.mark.parametrize("filters", FILTERS)
def test_nothing_is_read_between_the_wait_and_the_result(
    filters: str, lines: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        pytest.fail("a tensor was copied to the host")

    selector, logits, rows = TorchSelector(), random_logits(3), Rows([FILTERS[filters]] * 3)
    measured = selector.measure(logits, rows, np.full(3, np.nan))
    monkeypatch.setattr(Download, "wait", refuse)
    monkeypatch.setattr(torch.Tensor, "cpu", refuse)
    with Recorder() as recorder:
        plan = selector.prepare(measured, np.full(3, 0.8))
        selector.pick(plan, np.full(3, 0.5)).force(logits, lines)
    assert not recorder.names & HOST_READS
    forcing = "scatter_" if lines == [0, 1, 2] else "index_put_"
    assert {"scatter_add_", "cumsum", "gather", forcing} <= recorder.names


def test_the_recorder_notices_reading_and_allocating() -> None:
    with Recorder() as recorder:
        values = torch.zeros(4)
        values[1:].add_(1.0)
        float(values[0])
        values[values > 0.0]
    assert recorder.names & HOST_READS == {"_local_scalar_dense", "index"}
    assert {"zeros", "gt", "index"} <= set(recorder.allocating)
    assert not {"slice", "add_"} & set(recorder.allocating)


@pytest.mark.parametrize("filters", FILTERS)
def test_a_step_allocates_nothing(filters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a number per row, and not when the batch changes."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a tensor was made from numbers of the host")

    selector, logits, rows = TorchSelector(), random_logits(4), Rows([FILTERS[filters]] * 4)
    step(selector, logits, rows, 0.5).force(logits, range(4))
    for name in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.setattr(torch, name, refuse)
    for count in (4, 2, 3):
        part = random_logits(4)[:count]
        with Recorder() as recorder:
            step(selector, part, Rows([FILTERS[filters]] * count), 0.7).force(part, range(count))
        assert len(recorder.names) > 20
        assert recorder.allocating == []


def inner_allocations(work: Callable[[], object]) -> set[str]:
    """Returns what asks torch's allocator for memory, also out of sight of a dispatch mode.

    A number in an expression becomes a tensor of its own on a CPU, of eight bytes at most.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        work()
    large = [each for each in profile.events() if each.self_cpu_memory_usage > 8]
    return {f"{each.name} within {getattr(each.cpu_parent, 'name', None)}" for each in large}


@pytest.mark.parametrize("filters", FILTERS)
def test_operations_of_a_step_allocate_nothing_inside(filters: str) -> None:
    """Converting a type is the usual reason: adding up truth values does, on every device."""
    selector, logits, rows = TorchSelector(), random_logits(4), Rows([FILTERS[filters]] * 4)
    step(selector, logits, rows, 0.5)
    assert inner_allocations(lambda: step(selector, logits, rows, 0.7)) == set()
    flags, count = logits > 0.0, torch.empty(4, dtype=torch.int64)
    assert inner_allocations(lambda: torch.sum(flags, dim=1, out=count)), "nothing would be seen"


def test_batches_that_grow_move_seldom() -> None:
    selector, logits = TorchSelector(), random_logits(16)[:, :100].contiguous()
    spaces = set()
    for count in range(1, 17):
        step(selector, logits[:count], Rows([SamplingParameters()] * count), 0.5)
        spaces.add(id(selector._workspace.descent) if selector._workspace else 0)
    assert len(spaces) <= 5


def test_without_triton_the_passes_are_torch_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qr_sampler_accel.device.triton.passes", None)
    for device_type in ("cpu", "cuda"):
        assert kernel_passes("auto", device_type) is None
        assert kernel_passes("torch", device_type) is None
    with pytest.raises(ImportError):
        kernel_passes("triton", "cuda")


def test_with_triton_the_passes_on_cuda_are_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    class TritonPasses:
        def __init__(self, *_: Any) -> None:
            pass

    module = types.SimpleNamespace(TritonPasses=TritonPasses)
    monkeypatch.setitem(sys.modules, "qr_sampler_accel.device.triton.passes", module)
    assert kernel_passes("auto", "cuda") is TritonPasses
    assert kernel_passes("auto", "cpu") is None
    cpu = torch.device("cpu")
    assert isinstance(Workspace(1, 10, cpu, "triton").passes, TritonPasses)
    plain = Workspace(1, 10, cpu, "auto")
    assert plain.passes is plain.plain


@pytest.mark.parametrize("filters", FILTERS)
def test_laws_bring_a_few_numbers_to_the_host(
    filters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four drafts and the token after them: probabilities, remainders, a token and its rank."""
    brought: list[int] = []

    def cpu(values: Any) -> Any:
        brought.append(values.numel())
        return original(values)

    original = torch.Tensor.cpu
    selector, logits, rows = TorchSelector(), random_logits(5), Rows([FILTERS[filters]] * 5)
    measured = selector.measure(logits, rows, np.full(5, np.nan))
    plan = selector.prepare(measured, np.full(5, 0.8))
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    with Recorder() as recorder:
        laws = selector.laws(plan)
    assert not recorder.names & HOST_READS
    assert brought == []
    q = SparseLaw(np.arange(64), np.full(64, 0.01), 0.36 / (VOCAB - 64))
    residuals = [Residual(place, 0.9, q) for place in range(1, 4)]
    laws.probabilities(range(4), [3, 1, 4, 1])
    laws.remainders(residuals)
    (token, *_) = laws.select(residuals[:1], np.array([0.5]))
    laws.ranks([1], [int(token)])
    assert brought == [4, 3, 1, 1]
    laws.dense(0)
    assert brought[-1] == VOCAB, "nothing would be seen"


@needs_cuda
@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("filters", FILTERS)
def test_a_step_waits_once(kernels: Any, filters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch raises an error wherever an operation of its own waits for the device."""
    waits = []

    def wait(download: Download) -> Any:
        waits.append(download)
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return original(download)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    selector, rows = TorchSelector(kernels), Rows([FILTERS[filters]] * 3)
    logits, target = random_logits(3, "cuda"), random_logits(3, "cuda")
    for u in (0.2, 0.4):
        step(selector, logits, rows, u).force(target, [0, 1, 2])
    original = Download.wait
    monkeypatch.setattr(Download, "wait", wait)
    try:
        torch.cuda.set_sync_debug_mode("error")
        measured = selector.measure(logits, rows, np.full(3, 0.8))
        assert len(waits) == 1
        plan = selector.prepare(measured, np.full(3, 0.8))
        result = selector.pick(plan, np.full(3, 0.5))
        result.force(target, [0, 1, 2])
        # The second one belongs to the result of the step before, which nobody had read.
        assert len(waits) == 2
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert target.argmax(dim=1).tolist() == result.token_ids.tolist()


COMPILE = """
import json, re, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from qr_sampler_accel.device.triton import kernels as triton_kernels

POINTERS = {"maximum": "*fp32", "inverse": "*fp64", "logits": "*fp32", "base": "*i64",
            "value": "*fp32", "above": "*fp64", "at": "*fp64", "farthest": "*fp32",
            "least": "*fp64", "stride": "i32", "columns": "i32", "unit": "fp32", "shift": "i32",
            "parts": "i32"}
RESULTS = {"find_lowest": "*i32", "find_maxima": "*fp32"}
CONSTANTS = {"block": 1024, "weighted": True}
NVDISASM = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"

def machine_code(name, options):
    kernel = getattr(triton_kernels, name)
    types = {**POINTERS, "out": RESULTS.get(name, "*fp64")}
    signature = {key: types.get(key, "constexpr") for key in kernel.arg_names}
    constants = {(i,): CONSTANTS[key] for i, key in enumerate(kernel.arg_names) if key in CONSTANTS}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        process = subprocess.run([NVDISASM, file.name], capture_output=True, text=True, check=True)
        return process.stdout

def counts(name, options):
    code = machine_code(name, options)
    found = {word: len(re.findall(rf"\\b{word}\\b", code)) for word in ("DFMA", "DMUL", "FTZ")}
    # The exponential function of the CUDA library looks at the upper half of its argument so.
    return {**found, "absolute": len(re.findall(r"FADD\\.FTZ R\\d+, \\|R\\d+\\|, -RZ", code))}

KERNELS = ("fill_histogram", "add_masses_at", "find_lowest", "store_masses", "find_maxima",
           "add_moments")
found = {name: counts(name, dict(triton_kernels.COMPILE_OPTIONS)) for name in KERNELS}
print(json.dumps({**found, "by default": counts("fill_histogram", {})}))
"""


def nvdisasm() -> Path | None:
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        return None
    path = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    return path if path.exists() else None


@pytest.fixture(scope="module")
def machine_code(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Per kernel, how often instructions occur with our compile options; in one also without."""
    if nvdisasm() is None:
        pytest.skip("needs a Triton that brings NVIDIA's assembler and disassembler")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    # The stand-in backend of these tests refuses to be loaded where kernels are compiled.
    environment["TRITON_BACKENDS_IN_TREE"] = "1"
    process = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize(
    "kernel", ["fill_histogram", "add_masses_at", "find_lowest", "store_masses"]
)
def test_machine_code_rounds_after_every_operation(kernel: str, machine_code: Any) -> None:
    """A GPU is not needed to compile for one, nor to look for fused multiply-add instructions."""
    ours = machine_code[kernel]
    assert ours["DFMA"] == ours["FTZ"] == 0
    # 16 multiplications per token, 8 tokens per thread.
    assert ours["DMUL"] == 16 * 8
    assert machine_code["by default"]["DFMA"] > 0, "the option has no effect or the search is blind"


@pytest.mark.parametrize("kernel", ["find_maxima", "add_moments"])
def test_machine_code_of_other_kernels_keeps_denormal_numbers(
    kernel: str, machine_code: Any
) -> None:
    """Sums may be rounded in any way, within a bound, but a distance is not to become zero."""
    assert machine_code[kernel]["FTZ"] == machine_code[kernel]["absolute"]
    assert (machine_code[kernel]["DMUL"] > 0) == (kernel == "add_moments")


def test_the_import_of_the_package_does_not_import_torch() -> None:
    code = "import sys, qr_sampler_accel; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
