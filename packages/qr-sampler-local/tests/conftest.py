# SPDX-License-Identifier: Apache-2.0
"""What the tests of the package share: a loop with made-up logits, and no settings from outside."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropySource, EntropyUnavailableError, Settings
from qr_sampler.testing import EmittedText, check_files, check_ledger
from qr_sampler_local import LocalSampler, LocalSequence

VOCAB_SIZE = 16
END = 9

TINY_VOCAB_SIZE = 2048
WIDTH = 64
LAYERS = 2
"""Of the network that is made where none is ready."""


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> Iterator[None]:
    """Undoes what a shell does to background jobs: they ignore SIGINT, and so do their children."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


class Numbers(EntropySource):
    """A source that counts what it has delivered, and fails when it is told to."""

    blocks = False

    def __init__(self, name: str = "numbers") -> None:
        self._name = name
        self.requests: list[int] = []
        self.fails = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def drawn(self) -> int:
        return sum(self.requests)

    def get_random_bytes(self, n: int) -> bytes:
        if self.fails:
            raise EntropyUnavailableError(self.name, "unplugged")
        self.requests.append(n)
        return Random(f"{self.name} {len(self.requests)}").randbytes(n)


class Loop:
    """A sampler with sources, a ledger and made-up logits."""

    def __init__(self, folder: Path, *names: str, **settings: Any) -> None:
        self.folder = folder
        self.sources = [Numbers(name) for name in names or ("numbers",)]
        self.settings = Settings.load(
            **{
                "entropy_source_type": self.sources[0].name,
                "ledger_dir": folder,
                "sample_count": 64,
                "max_ks_distance": 1.0,
                "health": False,
                **settings,
            }
        )
        self.sampler = LocalSampler("made up", self.settings, sources=self.sources)
        self._random = np.random.default_rng(7)

    @property
    def source(self) -> Numbers:
        return self.sources[0]

    def logits(self, rows: int) -> Any:
        return self._random.normal(size=(rows, VOCAB_SIZE)).astype(np.float32)

    def sequence(self, **options: Any) -> LocalSequence:
        return self.sampler.sequence([1, 2, 3], **{"end_tokens": [END], **options})

    def step(self, *sequences: LocalSequence) -> list[int]:
        return self.sampler.step(self.logits(len(sequences)), sequences)

    def finish(self, *sequences: LocalSequence) -> None:
        while not all(sequence.ended for sequence in sequences):
            self.step(*sequences)

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        lines = [
            json.loads(line)
            for file in sorted(self.folder.glob("*.jsonl"))
            for line in file.read_text("utf-8").splitlines()
        ]
        return [line for line in lines if not kinds or line["kind"] in kinds]

    def check(self, texts: Iterable[LocalSequence | EmittedText]) -> None:
        """Compares the ledger with *texts*; of a sequence, with the tokens that it has now."""
        emitted = [text if isinstance(text, EmittedText) else text_of(text) for text in texts]
        drawn = sum(source.drawn for source in self.sources)
        check_ledger(self.lines(), emitted, bytes_drawn=drawn)
        check_files(sorted(self.folder.glob("*.jsonl")))


def text_of(sequence: LocalSequence, *, settled: bool = True) -> EmittedText:
    """What *sequence* has emitted."""
    return EmittedText(
        request_key=sequence.request_key,
        sequence=sequence.name,
        tokens=tuple(sequence.tokens),
        settled=settled,
    )


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small model: that of ``QR_TINY_MODEL_DIR``, or one with random weights."""
    if ready := os.environ.get("QR_TINY_MODEL_DIR"):
        return Path(ready)
    folder: Path = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    _write_network(folder)
    _write_tokenizer(folder)
    return folder


def _write_network(folder: Path) -> None:
    """Writes a network of Qwen2's kind, so small that it computes a token in a millisecond."""
    from safetensors.numpy import save_file

    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": TINY_VOCAB_SIZE,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "intermediate_size": 2 * WIDTH,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    random = np.random.default_rng(3)
    weights = {
        name: np.ones(shape, np.float32)
        if name.endswith("norm.weight")
        else random.normal(scale=0.1, size=shape).astype(np.float32)
        for name, shape in _shapes().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the network's weights, by their names in Qwen2."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (TINY_VOCAB_SIZE, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        own: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (WIDTH,),
            "post_attention_layernorm.weight": (WIDTH,),
            "self_attn.o_proj.weight": (WIDTH, WIDTH),
            "mlp.gate_proj.weight": (2 * WIDTH, WIDTH),
            "mlp.up_proj.weight": (2 * WIDTH, WIDTH),
            "mlp.down_proj.weight": (WIDTH, 2 * WIDTH),
        }
        for part in "qkv":
            own[f"self_attn.{part}_proj.weight"] = (WIDTH, WIDTH)
            own[f"self_attn.{part}_proj.bias"] = (WIDTH,)
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in own.items()}
    return shapes


def _write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer whose tokens are bytes; what is beyond them has names."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<end>", *letters]
    names += [f"<{index}>" for index in range(len(names), TINY_VOCAB_SIZE)]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<end>",
        "pad_token": "<end>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see none of the settings of whoever runs them."""
    for name in list(os.environ):
        if name.startswith("QR_") and name != "QR_TINY_MODEL_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def make_loop(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    """Makes loops with sources of the given names and with further settings; closes them."""
    loops: list[Loop] = []

    def make(*names: str, **settings: Any) -> Loop:
        loops.append(Loop(tmp_path, *names, **settings))
        return loops[-1]

    yield make
    for loop in loops:
        loop.sampler.close()


@pytest.fixture
def loop(make_loop: Callable[..., Loop]) -> Loop:
    """A loop with one source."""
    return make_loop()


@pytest.fixture
def text() -> Callable[..., EmittedText]:
    """Returns what a sequence has emitted."""
    return text_of
