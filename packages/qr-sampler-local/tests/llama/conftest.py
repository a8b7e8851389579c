# SPDX-License-Identifier: Apache-2.0
"""A stand-in for llama-cpp-python, and the real one where it is installed.

llama-cpp-python comes as source only, so the default sessions have none. ``StandIn`` replaces it
there: ``Llama.generate`` and ``create_completion`` with the signatures of 0.3.36 (the session
``llama_cpp`` compares them with the real ones), and with what its sampler chain does that matters
to an adapter. A logits processor is called with the tokens so far and a strided view of the logits;
what it raises is lost, as in any callback of ctypes; penalties, filters and a draw follow; and
``logit_bias`` loses the other processors. The logits are pseudo-random.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropySource, Settings
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.reader import read_ledger
from qr_sampler.testing import WitnessSource

VOCAB_SIZE = 64
END_TOKEN = 0
CANDIDATE = np.dtype([("id", np.intc), ("logit", np.single), ("p", np.single)], align=True)


class StandIn:
    """In the place of ``llama_cpp.Llama``: a model of letters whose logits follow from a seed."""

    def __init__(
        self,
        model_path: str,
        *,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_gpu_layers: int = 0,
        logits_all: bool = False,
        draft_model: Any = None,
        verbose: bool = True,
        chat_template: str | None = None,
    ) -> None:
        if "broken" in model_path:
            raise ValueError("Failed to load model from file")
        self.model_path, self.draft_model, self.verbose = model_path, draft_model, verbose
        self.metadata = {} if chat_template is None else {"tokenizer.chat_template": chat_template}
        self.model_params = type("Parameters", (), {"n_gpu_layers": n_gpu_layers})
        self.model: StandIn | None = self
        self.input_ids = np.zeros(n_ctx, dtype=np.intc)
        self.n_tokens = 0
        self.closed = False
        self.foreign_token: int | None = None
        self._n_ctx, self._logits_all = n_ctx, logits_all

    def __getstate__(self) -> dict[str, Any]:
        return {"logits_all": self._logits_all}

    def n_ctx(self) -> int:
        # llama.cpp would crash the process.
        assert not self.closed
        return self._n_ctx

    def n_vocab(self) -> int:
        return VOCAB_SIZE

    def token_eos(self) -> int:
        return END_TOKEN

    def token_bos(self) -> int:
        return -1

    def close(self) -> None:
        self.closed, self.model = True, None

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        return [byte % (VOCAB_SIZE - 1) + 1 for byte in text]

    def detokenize(
        self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False
    ) -> bytes:
        return bytes(48 + token for token in tokens if token != END_TOKEN)

    def eval(self, tokens: Sequence[int]) -> None:
        following = slice(self.n_tokens, self.n_tokens + len(tokens))
        self.input_ids[following] = tokens
        self.n_tokens += len(tokens)

    def generate(
        self,
        tokens: Sequence[int],
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        penalize_nl: bool = True,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        grammar: Any = None,
    ) -> Iterator[int]:
        self.n_tokens = 0
        self._random = np.random.default_rng(3)
        following = list(tokens)
        while True:
            self.eval(following)
            token = self._sampled(temp, logits_processor)
            if stopping_criteria is not None and stopping_criteria(self._ids(), None):
                return
            yield token
            following = [token]

    def _ids(self) -> Any:
        return self.input_ids[: self.n_tokens]

    def _sampled(self, temp: float, processors: Any) -> int:
        candidates = np.recarray(VOCAB_SIZE, dtype=CANDIDATE)
        candidates.logit[:] = self._random.normal(scale=2.0, size=VOCAB_SIZE)
        candidates.logit[END_TOKEN] = -40.0
        try:
            for processor in processors or ():
                candidates.logit[:] = processor(self._ids(), candidates.logit)
        # Printed and forgotten, as in a callback of ctypes.
        except BaseException:
            pass
        if self.foreign_token is not None:
            return self.foreign_token
        if temp == 0.0:
            return int(candidates.logit.argmax())
        scaled = candidates.logit.astype(np.float64) / (temp if temp > 0.0 else 1.0)
        masses = np.exp(scaled - scaled.max())
        return int(self._random.choice(VOCAB_SIZE, p=masses / masses.sum()))

    def create_completion(
        self,
        prompt: str | list[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: Any = [],  # noqa: B006
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: Any = None,
        logits_processor: Any = None,
        grammar: Any = None,
        logit_bias: dict[int, float] | None = None,
    ) -> Any:
        if logit_bias is not None:
            bias = [lambda ids, scores: _biased(scores, logit_bias)]
            logits_processor = bias if logits_processor is None else logits_processor.extend(bias)
        prompt_ids = self.tokenize(prompt.encode()) if isinstance(prompt, str) else prompt
        if max_tokens is None or max_tokens <= 0:
            max_tokens = self._n_ctx
        most = min(max_tokens, self._n_ctx - len(prompt_ids))
        # A stream calls it when it is first read.
        chunks = self._completion(
            lambda: self.generate(
                prompt_ids,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                typical_p=typical_p,
                temp=temperature,
                tfs_z=tfs_z,
                mirostat_mode=mirostat_mode,
                mirostat_tau=mirostat_tau,
                mirostat_eta=mirostat_eta,
                frequency_penalty=frequency_penalty,
                presence_penalty=presence_penalty,
                repeat_penalty=repeat_penalty,
                stopping_criteria=stopping_criteria,
                logits_processor=logits_processor,
                grammar=grammar,
            ),
            most,
            [stop] if isinstance(stop, str) else stop,
        )
        if stream:
            return chunks
        parts = [chunk["choices"][0] for chunk in chunks]
        text = "".join(part["text"] for part in parts)
        for each in [stop] if isinstance(stop, str) else stop:
            text = text.split(each)[0]
        choice = {"text": text, "finish_reason": parts[-1]["finish_reason"]}
        return {"choices": [choice], "usage": {"completion_tokens": len(parts) - 1}}

    def _completion(self, generate: Any, most: int, stop: list[str]) -> Iterator[Any]:
        ends = sys.modules["llama_cpp"].llama_vocab_is_eog
        text, finish_reason = "", "length"
        for count, token in enumerate(generate(), start=1):
            if ends(self, token):
                finish_reason = "stop"
                break
            piece = self.detokenize([token]).decode()
            text += piece
            yield {"choices": [{"text": piece, "finish_reason": None}]}
            if any(each in text for each in stop):
                finish_reason = "stop"
                break
            if count >= most:
                break
        yield {"choices": [{"text": "", "finish_reason": finish_reason}]}


def _biased(scores: Any, bias: dict[int, float]) -> Any:
    changed = np.copy(scores)
    for token, value in bias.items():
        changed[token] += value
    return changed


def _library() -> ModuleType:
    """The functions of ``llama_cpp`` that are called, and the stand-in as its ``Llama``."""
    module: Any = ModuleType("llama_cpp")
    module.__version__ = "0.3.36+stand.in"
    module.Llama, module.END_TOKEN = StandIn, END_TOKEN
    module.llama_model_get_vocab = lambda model: model
    module.llama_model_n_ctx_train = lambda model: 96
    module.llama_vocab_is_eog = lambda vocabulary, token: token == END_TOKEN
    module.llama_vocab_get_text = lambda vocabulary, token: b"<end>" if not token else b"%c" % token
    module.llama_supports_gpu_offload = lambda: True
    return module


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What replaces llama-cpp-python."""
    library = _library()
    monkeypatch.setitem(sys.modules, "llama_cpp", library)
    return library


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as GGUF file; ``QR_TINY_MODEL_DIR`` names the directory that it is made of."""
    tiny = os.environ.get("QR_TINY_MODEL_DIR")
    if tiny is None:
        pytest.skip("QR_TINY_MODEL_DIR names no tiny model")
    pytest.importorskip("gguf")
    gguf_file = pytest.importorskip("qr_sampler_cli.tiny_model.gguf_file")
    template = (
        "{% for message in messages %}{% if message.role == 'system' %}"
        "{{ raise_exception('no system messages') }}{% endif %}"
        "{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    written: Path = gguf_file.write_gguf(Path(tiny), file, chat_template=template)
    return written


@pytest.fixture(params=["stand-in", "llama.cpp"])
def make_llama(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes a ``Llama``, of the stand-in and then of the real library."""
    made: list[Any] = []
    if request.param == "stand-in":
        make, file = request.getfixturevalue("stand_in").Llama, tmp_path / "tiny.gguf"
        file.write_bytes(b"GGUF")
    elif find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed; the session `llama_cpp` compiles it")
    else:
        import llama_cpp

        make, file = llama_cpp.Llama, request.getfixturevalue("tiny_gguf")

    def make_one(**arguments: Any) -> Any:
        made.append(make(str(file), **{"n_ctx": 64, "verbose": False, **arguments}))
        return made[-1]

    yield make_one
    for each in made:
        each.close()


class RepeatableSource(WitnessSource):
    """Gives the same bytes once more on request."""

    def start_again(self) -> None:
        self._bytes = Random(self.name)


class Watched:
    """The settings and the source of a run, and its ledger afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = RepeatableSource()

    def settings(self, **more: Any) -> Settings:
        values = {
            "entropy_source_type": "witness",
            "sample_count": 16,
            "fallback_mode": "error",
            "ledger_dir": self.folder,
            "ledger_model_digest": False,
            "max_ks_distance": 1.0,
            **more,
        }
        return Settings.load(**values)

    @property
    def sources(self) -> dict[str, EntropySource]:
        return {"witness": self.source}

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        lines = [line for file in ledgers_in(self.folder) for line in read_ledger(file)]
        return [line for line in lines if line["kind"] in kinds]

    def tokens(self, key: str | None = None) -> list[int]:
        records = self.lines("token", "forced")
        return [each["token_id"] for each in records if key is None or each["request_key"] == key]

    def ends(self) -> list[tuple[int, str]]:
        return [(line["tokens"], line["reason"]) for line in self.lines("end")]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    folder = tmp_path / "ledger"
    folder.mkdir()
    return Watched(folder)
