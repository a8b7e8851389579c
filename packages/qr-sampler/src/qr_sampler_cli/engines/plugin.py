# SPDX-License-Identifier: Apache-2.0
"""Whether vLLM is here, and our plugin with it; neither is imported to see that."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Final

from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_cli.remedies import INSTALL_VLLM, from_clone

__all__ = [
    "PLUGIN_DISTRIBUTION",
    "PLUGIN_GROUP",
    "PLUGIN_PACKAGE",
    "absence",
    "remedy",
    "require_plugin",
]

PLUGIN_GROUP: Final = "vllm.logits_processors"
PLUGIN_DISTRIBUTION: Final = "qr-sampler-vllm"
PLUGIN_PACKAGE: Final = "qr_sampler_vllm"


def absence() -> str:
    """Returns what keeps vLLM with the plugin from being used; empty if both are installed."""
    if not _has_vllm():
        return "vLLM is not installed"
    return "" if _has_plugin() else f"vLLM is installed without {PLUGIN_DISTRIBUTION}"


def remedy() -> str:
    """Returns how to install what is absent of vLLM and the plugin."""
    if not _has_vllm():
        return f"vLLM: {INSTALL_VLLM}"
    return f"the plugin for vLLM {from_clone(PLUGIN_DISTRIBUTION)}"


def require_plugin() -> None:
    """Checks that vLLM is installed and will find the plugin.

    Raises:
        MissingPackageError: When no installed distribution offers it to vLLM.
    """
    if not _has_vllm():
        raise MissingPackageError(f"vLLM is not installed; {INSTALL_VLLM}")
    if not _has_plugin():
        raise MissingPackageError(
            f"the plugin of {PLUGIN_DISTRIBUTION} is not installed, so vLLM would choose the "
            f"tokens itself; install it {from_clone(PLUGIN_DISTRIBUTION)}"
        )


def _has_vllm() -> bool:
    if "vllm" in sys.modules:
        return sys.modules["vllm"] is not None
    spec = find_spec("vllm")
    # A folder that happens to have this name has no origin.
    return spec is not None and spec.origin is not None


def _has_plugin() -> bool:
    offered = (point.module for point in entry_points(group=PLUGIN_GROUP))
    return any(module.partition(".")[0] == PLUGIN_PACKAGE for module in offered)
