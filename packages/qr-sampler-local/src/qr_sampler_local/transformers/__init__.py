# SPDX-License-Identifier: Apache-2.0
"""Transformers: the tokens of its models, chosen by an entropy source.

:class:`TransformersSampler` generates like ``model.generate``, and makes what can be passed to that
itself: a ``custom_generate`` callable and a :class:`EntropyLogitsProcessor`. Importing this imports
torch and Transformers.
"""

from __future__ import annotations

from qr_sampler_local.transformers.batch import Batch
from qr_sampler_local.transformers.decoding import Decoding
from qr_sampler_local.transformers.processor import EntropyLogitsProcessor
from qr_sampler_local.transformers.sampler import TransformersSampler

__all__ = ["Batch", "Decoding", "EntropyLogitsProcessor", "TransformersSampler"]
