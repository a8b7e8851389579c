# SPDX-License-Identifier: Apache-2.0
"""Facts that only importing vLLM reveals; runs in a separate process, which may hang or crash.

vLLM itself is asked which model runner it would use: a rule copied from one version could be wrong
for the next. Creating its configuration starts no engine and loads no weights.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler_cli.doctor.request import EngineRequest
from qr_sampler_cli.engines.plugin import PLUGIN_GROUP
from qr_sampler_cli.findings.finding import in_one_line
from qr_sampler_cli.terminal.consoles import stdout_reserved

__all__ = ["MARKER", "Configuration", "Examination", "Processor", "examination", "main"]

MARKER: Final = "examination: "
"""Prefix of the one line of the output that is ours."""

V1_INTERFACE: Final = "vllm.v1.sample.logits_processor"
V2_INTERFACE: Final = "vllm.v1.worker.gpu.sample.logits_processor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A logits processor that vLLM would load."""

    target: str
    """Its ``module:Class``."""
    error: str = ""
    """Why it cannot be loaded, empty if it can."""
    serves_v1: bool = False
    """Whether it has the interface of Model Runner V1."""
    serves_v2: bool = False
    """Whether it has the interface of Model Runner V2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """vLLM's own configuration for the request."""

    uses_v2: bool
    """Whether it would use Model Runner V2."""
    max_num_seqs: int
    """Largest number of sequences in a step."""
    vocab_size: int
    """Number of tokens V."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The result of the process; a field is empty if it was not reached."""

    failure: str = ""
    """Why the process did not finish."""
    vllm_error: str = ""
    """Why vLLM does not import."""
    device_type: str = ""
    """The kind of device that vLLM would use, such as ``"cuda"`` or ``"cpu"``."""
    has_triton: bool | None = None
    """Whether vLLM can use Triton."""
    cuda_devices: int | None = None
    """Number of CUDA devices that torch sees."""
    torch_error: str = ""
    """Why torch does not import or cannot tell."""
    processors: tuple[Processor, ...] = ()
    """The installed processors, then those of the request."""
    configuration: Configuration | None = None
    """vLLM's configuration for a model that is on this machine."""
    configuration_error: str = ""
    """Why vLLM refuses the request."""
    layout_refusal: str = ""
    """Why qr-sampler refuses it."""
    layout_error: str = ""
    """Why that could not be determined."""
    uses_tsd: bool = False
    """Whether the request opts in to thermodynamic speculative decoding."""
    tsd_refusal: str = ""
    """Why its worker would not start."""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Examination:
        """Returns the examination from which :func:`dataclasses.asdict` made *data*."""
        configuration = data.pop("configuration", None)
        processors = data.pop("processors", ())
        return cls(
            **data,
            processors=tuple(Processor(**each) for each in processors),
            configuration=Configuration(**configuration) if configuration else None,
        )


def examination(request: EngineRequest) -> Examination:
    """Imports vLLM, loads the processors and, if the model is here, creates the configuration.

    Args:
        request: How vLLM will be started.
    """
    arg_utils, vllm_error = _attempt(lambda: import_module("vllm.engine.arg_utils"))
    devices, torch_error = _attempt(_cuda_devices)
    config, configuration_error = None, ""
    if arg_utils is not None and request.model_directory is not None:
        config, configuration_error = _attempt(lambda: _engine_config(arg_utils, request))
    refusal, layout_error = _attempt(lambda: _refusal(config or _stand_in(request)))
    described, description_error = _attempt(lambda: _described(config))
    uses_tsd = bool(_attempt(lambda: _uses_tsd(config or _stand_in(request)))[0])
    tsd_refusal, tsd_error = "", ""
    if uses_tsd:
        tsd_refusal, tsd_error = _attempt(lambda: _tsd_refusal(config, _stand_in(request)))
    return Examination(
        vllm_error=vllm_error,
        device_type=_attempt(_device_type)[0] or "",
        has_triton=_attempt(_has_triton)[0],
        cuda_devices=devices,
        torch_error=torch_error,
        processors=tuple(_processors(request)),
        configuration=described,
        configuration_error=configuration_error or description_error,
        layout_refusal=refusal or "",
        layout_error=layout_error,
        uses_tsd=uses_tsd,
        tsd_refusal=tsd_refusal or tsd_error,
    )


def _attempt(question: Callable[[], Any]) -> tuple[Any, str]:
    """Returns the result of *question*, or ``None`` and the reason."""
    try:
        return question(), ""
    # vLLM, torch and plugins can fail in any way; the reason is reported to the operator.
    except (Exception, SystemExit) as error:
        return None, _reason(error)


def _reason(error: BaseException) -> str:
    """Returns the message of *error*; pydantic's last line would be a link."""
    problems = getattr(error, "errors", None)
    if callable(problems):
        messages = "; ".join(str(problem["msg"]) for problem in problems())
        return f"{type(error).__name__}: {messages}"
    return in_one_line(error)


def _cuda_devices() -> int:
    torch: Any = import_module("torch")
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _device_type() -> str:
    return str(import_module("vllm.platforms").current_platform.device_type)


def _has_triton() -> bool:
    return bool(import_module("vllm.triton_utils").HAS_TRITON)


def _engine_config(arg_utils: Any, request: EngineRequest) -> Any:
    arguments = arg_utils.EngineArgs(model=request.model, **request.arguments)
    usage: Any = import_module("vllm.usage.usage_lib").UsageContext
    return arguments.create_engine_config(usage.OPENAI_API_SERVER)


def _described(config: Any) -> Configuration | None:
    if config is None:
        return None
    return Configuration(
        # Versions with a single runner lack the attribute.
        uses_v2=bool(getattr(config, "use_v2_model_runner", False)),
        max_num_seqs=int(config.scheduler_config.max_num_seqs),
        vocab_size=int(config.model_config.get_vocab_size()),
    )


def _refusal(config: Any) -> str:
    layout: Any = import_module("qr_sampler_vllm.engine.layout")
    try:
        layout.check_layout(config)
    except ConfigError as error:
        return str(error)
    return ""


def _uses_tsd(config: Any) -> bool:
    return bool(import_module("qr_sampler_vllm.tsd.opt_in").opted_in(config))


def _tsd_refusal(config: Any, stand_in: Any) -> str:
    """Returns why the TSD worker would refuse to start, as far as that depends on the request."""
    try:
        import_module("qr_sampler_vllm.tsd.opt_in").check_opt_in(config or stand_in)
        settings = import_module("qr_sampler_vllm.tsd.settings").TSDSettings.load()
        if config is not None:
            vocab_size = int(config.model_config.get_vocab_size())
            import_module("qr_sampler_vllm.tsd.drafter").load(settings, vocab_size)
    except ConfigError as error:
        return str(error)
    return ""


def _stand_in(request: EngineRequest) -> SimpleNamespace:
    """Returns the part of a configuration that depends on the request alone."""
    argument, speculation = request.arguments.get, request.speculative_config
    return SimpleNamespace(
        parallel_config=SimpleNamespace(
            enable_batch_sharded_sampling=argument("enable_batch_sharded_sampling"),
            worker_cls=argument("worker_cls"),
            tensor_parallel_size=argument("tensor_parallel_size", 1),
            pipeline_parallel_size=argument("pipeline_parallel_size", 1),
        ),
        model_config=SimpleNamespace(
            enable_trace_replay=argument("enable_trace_replay", False),
            logprobs_mode=argument("logprobs_mode", "raw_logprobs"),
        ),
        scheduler_config=SimpleNamespace(async_scheduling=argument("async_scheduling", False)),
        watermark_config=argument("watermark_config"),
        speculative_config=None if speculation is None else SimpleNamespace(**speculation),
    )


def _processors(request: EngineRequest) -> Iterator[Processor]:
    interfaces = [_interface(name) for name in (V1_INTERFACE, V2_INTERFACE)]
    for point in entry_points(group=PLUGIN_GROUP):
        yield _processor(point.value, point.load, interfaces)
    for target in request.logits_processors:
        yield _processor(target, partial(_named, target), interfaces)


def _interface(module: str) -> Any:
    return _attempt(lambda: import_module(module).LogitsProcessor)[0]


def _named(target: str) -> Any:
    module, separator, path = target.partition(":")
    if not separator:
        raise ValueError(f"{target!r} is not of the form module:Class")
    component: Any = import_module(module)
    for name in path.split("."):
        component = getattr(component, name)
    return component


def _processor(target: str, load: Callable[[], Any], interfaces: list[Any]) -> Processor:
    component, error = _attempt(load)
    if not error and not isinstance(component, type):
        error = f"{target} is not a class"
    if error:
        return Processor(target=target, error=error)
    v1, v2 = (
        interface is not None and issubclass(component, interface) for interface in interfaces
    )
    return Processor(target=target, serves_v1=v1, serves_v2=v2)


def main() -> None:
    """Reads a request from standard input and writes its examination to standard output."""
    request = EngineRequest(**json.load(sys.stdin))
    with stdout_reserved():
        result = examination(request)
    print(MARKER + json.dumps(dataclasses.asdict(result)), flush=True)


if __name__ == "__main__":
    main()
