# SPDX-License-Identifier: Apache-2.0
"""A model of any size that says what a small one says, for benchmarks of drafting.

Random weights do not draft: their text has no law that a proposer could learn. So a trained model
is grown instead, without changing what it computes (Chen et al. 2016, Net2Net, arXiv 1511.05641):
its feed-forward layers get more hidden units, with weights that are read and multiplied in every
pass and whose outputs have the weight 0. A pass costs what one of a model of that size does.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

__all__ = ["grown"]

_WIDTH_STEP: Final = 64


def grown(small: Path, directory: Path, parameters: int) -> int:
    """Saves the model in *small*, grown to at least *parameters*, in *directory*.

    Args:
        small: A Qwen2 model, as ``qr-sampler tiny-model`` makes one.
        directory: Made.
        parameters: Least number of weights.

    Returns:
        How many it has.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float32)
    config = AutoConfig.from_pretrained(small)
    config.intermediate_size = _width(model, parameters)
    wide = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state, torch_rng = wide.state_dict(), torch.Generator().manual_seed(0)
    for name, old in model.state_dict().items():
        new = state[name]
        if new.shape != old.shape:
            new.normal_(0.0, 0.02, generator=torch_rng)
            if "down_proj" in name:
                new.zero_()
            new[: old.shape[0], : old.shape[1]] = old
        else:
            new.copy_(old)
    wide.load_state_dict(state)
    wide.save_pretrained(directory)
    for file in small.glob("*token*"):
        shutil.copy(file, directory)
    return sum(each.numel() for each in wide.parameters())


def _width(model: Any, parameters: int) -> int:
    """Returns the hidden units of each feed-forward layer that make up *parameters*."""
    config = model.config
    have = sum(each.numel() for each in model.parameters())
    per_unit = 3 * config.hidden_size * config.num_hidden_layers
    missing = max(parameters - have, 0)
    width = int(config.intermediate_size) + -(-missing // per_unit)
    steps: int = -(-width // _WIDTH_STEP)
    return steps * _WIDTH_STEP
