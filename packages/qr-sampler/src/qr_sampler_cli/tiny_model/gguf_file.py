# SPDX-License-Identifier: Apache-2.0
"""The tiny model as the one file that llama.cpp reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qr_sampler_cli.failures import import_package

__all__ = ["write_gguf"]

ARCHITECTURE: Final = "qwen2"
"""The architecture of the tiny model as GGUF names it."""

TENSORS: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
"""GGUF's names of the tensors outside the layers, by those that Transformers gives them."""

LAYER_TENSORS: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The same for those of one layer."""


def write_gguf(directory: Path, file: Path, *, chat_template: str | None = None) -> Path:
    """Returns *file*, into which the tiny model of *directory* has been written.

    The weights stay float32, so that both files give the same logits but for the order in which
    an engine adds.

    Args:
        directory: A directory that :func:`~qr_sampler_cli.tiny_model.directory.train_tiny_model`
            has made.
        file: Written as a whole; an existing file is replaced.
        chat_template: A Jinja template for conversations; none is written if not given.

    Raises:
        MissingPackageError: When gguf is not installed.
    """
    gguf = import_package(
        "gguf", needed_for="writing a GGUF file", remedy="install it with: pip install gguf"
    )
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    writer = gguf.GGUFWriter(partial, ARCHITECTURE)
    try:
        _add_shape(writer, _read(directory / "config.json"))
        _add_tokenizer(gguf, writer, _read(directory / "tokenizer.json"))
        if chat_template is not None:
            writer.add_chat_template(chat_template)
        for name, weights in _weights(directory / "model.safetensors"):
            writer.add_tensor(_gguf_name(name), weights)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(file)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)
    return file


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _add_shape(writer: Any, config: Mapping[str, Any]) -> None:
    writer.add_name("tiny model")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])


def _add_tokenizer(gguf: Any, writer: Any, tokenizer: Mapping[str, Any]) -> None:
    """Adds a byte-level BPE whose text is split as that of GPT-2."""
    tokens = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    ordered = sorted(tokens, key=tokens.__getitem__)
    writer.add_token_list(ordered)
    writer.add_token_types([kinds.CONTROL if each in special else kinds.NORMAL for each in ordered])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_add_bos_token(False)


def _gguf_name(name: str) -> str:
    """Returns GGUF's name of a tensor."""
    module, _, kind = name.rpartition(".")
    if module in TENSORS:
        return f"{TENSORS[module]}.{kind}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{LAYER_TENSORS[part]}.{kind}"


def _weights(file: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields the tensors of a safetensors file of float32, by name.

    The format: https://huggingface.co/docs/safetensors, a length of 8 bytes, a JSON header, and
    the numbers, all of them little-endian.
    """
    content = file.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    for name, facts in sorted(header.items()):
        if name == "__metadata__":
            continue
        if facts["dtype"] != "F32":
            raise ValueError(f"{name} in {file} is of {facts['dtype']}, and not of F32")
        start, end = (begin + offset for offset in facts["data_offsets"])
        numbers = np.frombuffer(content[start:end], dtype="<f4").astype(np.float32)
        yield name, numbers.reshape(facts["shape"])
