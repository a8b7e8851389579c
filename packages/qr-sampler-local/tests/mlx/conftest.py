# SPDX-License-Identifier: Apache-2.0
"""A small model of MLX-LM, and samplers whose source and ledger a test looks into."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import Settings
from qr_sampler.testing import WitnessSource, records_in

pytest.importorskip("mlx_lm", reason="MLX-LM is not installed")

VOCAB_SIZE = 2048


@pytest.fixture(scope="package")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small model: that of ``QR_TINY_MODEL_DIR``, or one with random weights."""
    ready = os.environ.get("QR_TINY_MODEL_DIR")
    if ready:
        return Path(ready)
    folder: Path = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    _write_network(folder)
    _write_tokenizer(folder)
    return folder


def _write_network(folder: Path) -> None:
    """Writes a network of Qwen2's kind, so small that it computes a token in a millisecond."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.qwen2 import Model, ModelArgs

    config = {
        "model_type": "qwen2",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    mx.random.seed(3)
    weights = dict(tree_flatten(Model(ModelArgs.from_dict(config)).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def _write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer whose tokens are bytes; what is beyond them has names."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<end>", *letters]
    names += [f"<{index}>" for index in range(len(names), VOCAB_SIZE)]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


@pytest.fixture(scope="package")
def loaded(tiny_dir: Path) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    import mlx_lm

    model, tokenizer = mlx_lm.load(str(tiny_dir))[:2]
    return model, tokenizer


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings with a ledger in the folder of the test."""

    def make(**more: Any) -> Settings:
        return Settings.load(
            **{
                "fallback_mode": "error",
                "sample_count": 16,
                "max_ks_distance": 1.0,
                "entropy_source_type": "witness",
                "ledger_dir": tmp_path / "ledger",
                "ledger_model_digest": False,
                "log_level": "none",
                **more,
            }
        )

    return make


class Watched:
    """A sampler with a source that keeps its own account.

    Args:
        settings: What it samples with.
        source: The source; a witness if not given.
        model: Its name.
    """

    def __init__(self, settings: Settings, source: Any = None, model: str = "tiny") -> None:
        from qr_sampler_local.mlx import MLXSampler

        self.source = source or WitnessSource()
        self.folder = settings.ledger_dir
        self.sampler = MLXSampler(model, settings, sources=[self.source])

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        """Ends the sampler, unless that was done, and returns its records of *kinds*."""
        self.sampler.close()
        assert self.folder is not None
        return [line for line in records_in(Path(self.folder)) if line["kind"] in kinds]

    def emitted(self, name: str) -> list[int]:
        """Returns the tokens of a sequence that the ledger says were emitted."""
        return [
            line["token_id"]
            for line in self.records("token", "forced", "undecided")
            if line["sequence"] == name and line["emitted"]
        ]


@pytest.fixture
def watch(settings_of: Callable[..., Settings]) -> Iterator[Callable[..., Watched]]:
    """Makes samplers, which are closed in the end."""
    made: list[Watched] = []

    def make(source: Any = None, **settings: Any) -> Watched:
        if source is not None:
            settings = {"entropy_source_type": source.name, **settings}
        made.append(Watched(settings_of(**settings), source))
        return made[-1]

    yield make
    for each in made:
        each.sampler.close()
