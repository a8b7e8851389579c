# SPDX-License-Identifier: Apache-2.0
"""Workers of vLLM whose model runner verifies drafts with the entropy source.

``worker_cls`` takes the name of a class. ``TSDCPUWorker`` is for vLLM's CPU build and ``TSDWorker``
for accelerators. Each is created on first access, because neither base class can be imported
everywhere.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qr_sampler_vllm.tsd.opt_in import check_opt_in, uses_v2

__all__ = ["TSDCPUWorker", "TSDWorker", "Verifying"]

_BASES = {
    "TSDCPUWorker": ("vllm.v1.worker.cpu_worker", "CPUWorker"),
    "TSDWorker": ("vllm.v1.worker.gpu_worker", "Worker"),
}


class Verifying:
    """Mixin for a vLLM worker.

    Args:
        vllm_config: vLLM's ``VllmConfig``.
        *arguments: As vLLM passes them on.
        **options: As vLLM passes them on.

    Raises:
        ConfigError: When the engine could not be served correctly.
    """

    vllm_config: Any
    model_runner: Any
    speculator: Any = None
    """What drafts under Model Runner V2."""

    def __init__(self, vllm_config: Any, *arguments: Any, **options: Any) -> None:
        check_opt_in(vllm_config)
        super().__init__(vllm_config, *arguments, **options)  # type: ignore[call-arg]

    def init_device(self) -> None:
        """Creates the model runner and makes it verify drafts with the entropy source."""
        super().init_device()  # type: ignore[misc]
        from qr_sampler_vllm.tsd.attachment import attach, attach_speculator

        if uses_v2(self.vllm_config):
            self.speculator = attach_speculator(self.vllm_config, self.model_runner)
        else:
            attach(self.vllm_config, self.model_runner)

    def execute_model(self, scheduler_output: Any) -> Any:
        """Runs a step; the speculator of Model Runner V2 learns which requests come and go."""
        if self.speculator is not None:
            self.speculator.follow(scheduler_output)
        return super().execute_model(scheduler_output)  # type: ignore[misc]


if TYPE_CHECKING:
    TSDCPUWorker = Verifying
    TSDWorker = Verifying


def __getattr__(name: str) -> Any:
    if name not in _BASES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, base = _BASES[name]
    members = {"__module__": __name__, "__doc__": Verifying.__doc__}
    worker = type(name, (Verifying, getattr(import_module(module), base)), members)
    globals()[name] = worker
    return worker
