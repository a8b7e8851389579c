# SPDX-License-Identifier: Apache-2.0
"""The tiny model as a GGUF file.

The stand-in for the package gguf only notes what it is told; the session `llama_cpp` writes real
files, and compares what llama.cpp computes from them with what Transformers does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_cli.tiny_model.gguf_file import write_gguf

LAYER = "model.layers.1."
SHAPES: dict[str, list[int]] = {
    "model.embed_tokens.weight": [3, 4],
    "model.norm.weight": [4],
    LAYER + "self_attn.q_proj.weight": [4, 4],
    LAYER + "self_attn.q_proj.bias": [4],
    LAYER + "mlp.down_proj.weight": [4, 8],
    LAYER + "post_attention_layernorm.weight": [4],
}
NAMES = [
    "token_embd.weight",
    "blk.1.ffn_down.weight",
    "blk.1.ffn_norm.weight",
    "blk.1.attn_q.bias",
    "blk.1.attn_q.weight",
    "output_norm.weight",
]


class Writer:
    """In the place of ``gguf.GGUFWriter``."""

    def __init__(self, path: Path, architecture: str) -> None:
        self.path, self.architecture = path, architecture
        self.told: dict[str, Any] = {}
        self.tensors: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda value: self.told.update({name.removeprefix("add_"): value})

    def add_tensor(self, name: str, weights: Any) -> None:
        self.tensors[name] = weights

    def write_header_to_file(self) -> None:
        self.path.write_bytes(b"GGUF")

    def write_kv_data_to_file(self) -> None:
        assert self.path.exists()

    def write_tensors_to_file(self) -> None:
        assert self.tensors

    def close(self) -> None:
        self.told["closed"] = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    made: list[Writer] = []

    def writer(*given: Any) -> Writer:
        made.append(Writer(*given))
        return made[-1]

    module: Any = ModuleType("gguf")
    module.GGUFWriter = writer
    module.TokenType = type("TokenType", (), {"NORMAL": 1, "CONTROL": 3})
    monkeypatch.setitem(sys.modules, "gguf", module)
    return made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    numbers = {"max_position_embeddings": 16, "hidden_size": 4, "num_hidden_layers": 2}
    numbers |= {"intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
    numbers |= {"bos_token_id": 0, "eos_token_id": 0}
    config = {**numbers, "rms_norm_eps": 1e-6, "rope_parameters": {"rope_theta": 1e4}}
    (directory / "config.json").write_text(json.dumps(config))
    bpe = {"vocab": {"ab": 2, "<end>": 0, "a": 1}, "merges": [["a", "b"]]}
    tokenizer = {"model": bpe, "added_tokens": [{"content": "<end>"}]}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (directory / "model.safetensors").write_bytes(safetensors("F32"))
    return directory


def safetensors(dtype: str) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, shape in SHAPES.items():
        weights = np.arange(np.prod(shape), dtype="<f4") + len(content)
        offsets = [len(content), len(content) + weights.nbytes]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        content += weights.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def test_weights_tokens_and_sizes_are_written(
    model: Path, writers: list[Writer], tmp_path: Path
) -> None:
    file = tmp_path / "tiny.gguf"
    assert write_gguf(model, file, chat_template="the template") == file
    (writer,) = writers
    assert writer.architecture == "qwen2"
    assert list(writer.tensors) == NAMES
    assert writer.tensors["blk.1.ffn_down.weight"].shape == (4, 8)
    assert writer.tensors["blk.1.attn_q.bias"].tolist() == [128, 129, 130, 131]
    assert writer.told["token_list"] == ["<end>", "a", "ab"]
    assert writer.told["token_types"] == [3, 1, 1]
    assert writer.told["token_merges"] == ["a b"]
    assert writer.told["head_count_kv"] == 1
    assert writer.told["rope_freq_base"] == 1e4
    assert writer.told["chat_template"] == "the template"
    assert writer.told["closed"]
    assert [each.name for each in tmp_path.iterdir()] == ["model", "tiny.gguf"]


def test_weights_of_another_type_are_refused(
    model: Path, writers: list[Writer], tmp_path: Path
) -> None:
    (model / "model.safetensors").write_bytes(safetensors("BF16"))
    with pytest.raises(ValueError, match="is of BF16, and not of F32"):
        write_gguf(model, tmp_path / "tiny.gguf")
    assert writers[0].told["closed"]


def test_without_gguf_its_absence_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingPackageError, match="pip install gguf"):
        write_gguf(model, tmp_path / "tiny.gguf")
