# SPDX-License-Identifier: Apache-2.0
"""Physical randomness for language models that run in the user's own process.

:class:`LocalSampler` chooses the tokens of whatever loop computes logits; the sub-packages
``transformers``, ``mlx`` and ``llama_cpp`` put it into those engines. The import needs none of
them.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from qr_sampler_local.loop import LEFT_TO_CALLER, LocalSampler, LocalSequence, force_tokens

__all__ = ["LEFT_TO_CALLER", "LocalSampler", "LocalSequence", "__version__", "force_tokens"]

__version__ = _version("qr-sampler-local")
