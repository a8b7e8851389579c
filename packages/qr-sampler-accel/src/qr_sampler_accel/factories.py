# SPDX-License-Identifier: Apache-2.0
"""What is fastest with the packages that are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from qr_sampler import BlockCounts, FastSelector, Selector
from qr_sampler.health import HealthMonitor, HealthPolicy

if TYPE_CHECKING:
    from qr_sampler.arrays import ByteBlocks
    from qr_sampler_accel.device.selector import TorchSelector

__all__ = [
    "block_counts",
    "device_selector",
    "has_compiler",
    "health_monitor",
    "host_selector",
    "warm_up",
]


def has_compiler() -> bool:
    """Whether Numba is installed; without it the host works in NumPy, with the same results."""
    return find_spec("numba") is not None


def host_selector() -> Selector[Any, Any]:
    """Returns a selector for float32 logits in the memory of the host.

    Its loops are compiled where Numba is installed: by :func:`warm_up`, or else by the first rows.
    """
    if not has_compiler():
        return FastSelector()
    from qr_sampler_accel.host.selector import CompiledSelector

    return CompiledSelector()


def device_selector() -> TorchSelector:
    """Returns a selector for tensors on an accelerator, of any floating-point type.

    Raises:
        ImportError: When torch is not installed.
    """
    from qr_sampler_accel.device.selector import TorchSelector

    return TorchSelector()


def block_counts() -> Callable[[ByteBlocks], BlockCounts]:
    """Returns what counts the bytes of blocks, which are always in the memory of the host."""
    if not has_compiler():
        return BlockCounts
    from qr_sampler_accel.host.byte_counts import CompiledCounts

    return CompiledCounts


def health_monitor(policy: HealthPolicy) -> HealthMonitor:
    """Returns what tests the bytes of a source, which are always in the memory of the host.

    Args:
        policy: What is assumed of the source.
    """
    if not has_compiler():
        return HealthMonitor(policy)
    from qr_sampler_accel.host.health_pass import CompiledMeasures

    return HealthMonitor(policy, CompiledMeasures)


def warm_up(*, logits_on_host: bool) -> None:
    """Compiles the loops of a step ahead of the first token; does nothing without Numba.

    Takes some twenty seconds the first time, and half a second once the code has been kept.

    Args:
        logits_on_host: Whether logits are in the memory of the host, where blocks always are.
    """
    if has_compiler():
        from qr_sampler_accel.host.warm_up import warm_up as compile_loops

        compile_loops(logits_on_host=logits_on_host)
