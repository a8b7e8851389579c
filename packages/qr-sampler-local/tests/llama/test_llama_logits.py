# SPDX-License-Identifier: Apache-2.0
"""The GGUF file of the tiny model has the logits and the tokens of the model that it is made of."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

TEXT = "The Rays of Light which differ in Colour, 12 times  and\n\nQuery? don't"


def test_logits_and_tokens_are_those_of_transformers(tiny_gguf: Path) -> None:
    """Attention in float32, too: llama.cpp keeps keys and values in float16 otherwise."""
    llama_cpp = pytest.importorskip("llama_cpp")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    directory = Path(os.environ["QR_TINY_MODEL_DIR"])
    tokens = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json")).encode(TEXT).ids
    llama = llama_cpp.Llama(
        str(tiny_gguf), n_ctx=128, verbose=False, logits_all=True, type_k=0, type_v=0
    )
    try:
        assert llama.tokenize(TEXT.encode(), add_bos=True) == tokens
        llama.eval(tokens)
        ours = np.array(llama.scores[: len(tokens)])
    finally:
        llama.close()
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0].numpy()
    assert np.ptp(theirs) > 5.0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
