# SPDX-License-Identifier: Apache-2.0
"""What the package imports, exports and promises in its docstrings."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_origin

import pytest

import qr_sampler

ROOT = Path(qr_sampler.__file__).parent
TOML = {"tomli", "tomllib"}
"""One package under two names: before Python 3.11 it is no part of the standard library."""
ALLOWED = {"msgspec", "numpy", "pydantic", "pydantic_settings", "qr_sampler", *TOML}
ABOVE = ("grpc", "torch", "vllm", "scipy", "pytest", "hypothesis", "transformers")
SIBLINGS = (
    "qr_entropy_sources",
    "qr_sampler_accel",
    "qr_sampler_cli",
    "qr_sampler_grpc",
    "qr_sampler_vllm",
)

MOVED = {
    "qr_sampler.commitment": "qr_sampler.sampling.commitment",
    "qr_sampler.overrides": "qr_sampler.admission.overrides",
    "qr_sampler.registry": "qr_sampler",
}
"""Deprecated modules, and where their names are defined."""

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages([str(ROOT)], "qr_sampler.")
    if not info.name.startswith("qr_sampler.testing") and info.name not in MOVED
)

PUBLIC_NAMES = [
    "AmplificationResult",
    "AMPLIFIERS",
    "Baseline",
    "BitZScoreAmplifier",
    "BlockCounts",
    "check_components",
    "ComponentError",
    "ConfigError",
    "configured_source",
    "configured_sources",
    "create_source",
    "bypass_record",
    "discard_record",
    "BypassRecord",
    "DiscardRecord",
    "dropped_record",
    "link_digest",
    "row_digest",
    "step_commitment",
    "DroppedBytes",
    "DynatempTemperatureStrategy",
    "ECDFAmplifier",
    "EDTPaperTemperatureStrategy",
    "EDTTemperatureStrategy",
    "END_REQUEST",
    "EmissionRecord",
    "EngineFields",
    "ENTROPY_SOURCES",
    "EntropyDraw",
    "EntropySource",
    "EntropyUnavailableError",
    "ExactBitsAmplifier",
    "ExactSumAmplifier",
    "FallbackEntropySource",
    "FastSelector",
    "FixedTemperatureStrategy",
    "ForcedRecord",
    "GapRecord",
    "GenesisRecord",
    "GuardedSource",
    "JitClass",
    "JsonLinesSink",
    "LogitStatistics",
    "measure_baseline",
    "Measurement",
    "MemorySink",
    "Origin",
    "Plugin",
    "PluginConflictError",
    "PluginError",
    "PluginLoadError",
    "QRSamplerError",
    "RAISE_ERROR",
    "RandomWalkAmplifier",
    "Record",
    "RecordSink",
    "ReferenceSelector",
    "Registry",
    "RequestOptions",
    "Resolution",
    "resolve_request",
    "Rows",
    "RowContext",
    "RunningMean",
    "SamplingLogger",
    "SamplingParameters",
    "SamplingPipeline",
    "SelectionResult",
    "Selector",
    "Settings",
    "SignalAmplifier",
    "SourceLimits",
    "SourceStatus",
    "STATISTICS_STEP",
    "StepPlan",
    "StepPlanner",
    "StepResult",
    "TEMPERATURE_STRATEGIES",
    "TemperatureResult",
    "TemperatureStrategy",
    "token_record",
    "TokenSamplingRecord",
    "Uniform53Amplifier",
    "UndecidedRecord",
    "UnknownPluginError",
    "VarentropyTemperatureStrategy",
    "ZScoreMeanAmplifier",
]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            assert node.module is not None
            yield node.module


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.rglob("*.py")) if "testing" not in path.relative_to(ROOT).parts],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_modules_import_the_declared_dependencies_only(path: Path) -> None:
    roots = {name.partition(".")[0] for name in imports_of(path)}
    foreign = roots - ALLOWED - sys.stdlib_module_names
    assert not foreign, f"{path} imports {foreign}"
    assert "qr_sampler.testing" not in set(imports_of(path))


def test_the_import_scan_sees_through_nested_imports(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text("def f():\n    import torch.nn\n    from grpc import aio\n", "utf-8")
    assert list(imports_of(path)) == ["torch.nn", "grpc"]


SCRIPT = """
import sys
def refuse(event, args):
    assert event != "socket.__new__", "a socket was opened"
sys.addaudithook(refuse)
import {modules}
loaded = sorted(name for name in {forbidden!r} if name in sys.modules)
assert not loaded, loaded
import threading
assert threading.active_count() == 1
"""


def test_importing_everything_loads_no_engine_opens_no_socket_and_starts_no_thread() -> None:
    script = SCRIPT.format(modules=", ".join(["qr_sampler", *MODULES]), forbidden=ABOVE + SIBLINGS)
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_whatever_plans_a_step_can_reach_no_source() -> None:
    """Not even through what it imports: a planner that could draw might draw too early."""
    reached = modules_reached_from("qr_sampler.sampling.planner")
    assert {"qr_sampler.selection.fast.selector", "qr_sampler.temperature.guard"} <= reached
    # The root exports everything, sources too.
    assert "qr_sampler" not in reached
    assert not [name for name in reached if name.startswith("qr_sampler.entropy")]
    assert "qr_sampler.entropy.source" in modules_reached_from("qr_sampler.sampling.pipeline")


def modules_reached_from(module: str) -> set[str]:
    """Returns all of our modules that *module* imports, directly or not, for its types as well."""
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        package, _, _ = name.rpartition(".")
        waiting |= {package} - {"qr_sampler", ""} - reached
        waiting |= set(our_imports_of(Path(str(importlib.import_module(name).__file__)))) - reached
    return reached


def our_imports_of(path: Path) -> Iterator[str]:
    """Yields our modules that a file imports, also as ``from package import module``."""
    ours = {"qr_sampler", "qr_sampler.arrays", *MODULES}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ours.intersection(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            members = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from ours.intersection([str(node.module), *members])


def test_the_public_names_are_these() -> None:
    assert sorted(qr_sampler.__all__) == sorted(PUBLIC_NAMES)


@pytest.mark.parametrize("name", ["qr_sampler", *MODULES])
def test_exports_exist_and_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    exports = module.__all__
    assert len(set(exports)) == len(exports)
    for export in exports:
        value = getattr(module, export)
        # An alias such as Callable[[float], float] has no docstring of its own.
        if callable(value) and hasattr(value, "__module__") and get_origin(value) is None:
            assert value.__doc__, f"{name}.{export} has no docstring"


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_modules_that_moved_serve_their_names_with_a_warning(old: str, new: str) -> None:
    module, target = importlib.import_module(old), importlib.import_module(new)
    for name in target.__all__:
        with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
            assert getattr(module, name) is getattr(target, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    assert qr_sampler.__version__ == importlib.metadata.version("qr-sampler-core")


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_carry_their_licence(path: Path) -> None:
    assert path.read_text("utf-8").startswith("# SPDX-License-Identifier: Apache-2.0\n")


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").exists()


def test_examples_in_docstrings_are_true() -> None:
    attempted = 0
    for name in ["qr_sampler", *MODULES, "qr_sampler.testing", "qr_sampler.testing.doubles"]:
        module = importlib.import_module(name)
        failures, tests = doctest.testmod(
            module, extraglobs={"np": importlib.import_module("numpy")}
        )
        assert failures == 0, name
        attempted += tests
    assert attempted >= 4
