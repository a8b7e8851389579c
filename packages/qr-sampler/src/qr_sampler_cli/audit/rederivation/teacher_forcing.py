# SPDX-License-Identifier: Apache-2.0
"""Logits of whole sequences, by transformers."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.rederivation.names import DeviceName, DtypeName
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import from_clone
from qr_sampler_cli.terminal.progress import no_progress_bars_of

if TYPE_CHECKING:
    from qr_sampler.arrays import Logits

__all__ = ["LogitsSlice", "RescoringModel"]

_NEEDED_FOR: Final = "audit --model"
_REMEDY: Final = "install it " + from_clone("qr-sampler[rescore]")

_UNLOADABLE: Final = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)
"""What transformers raises for directories that hold no model, or one that is broken."""

_MOST_LOGITS: Final = 2**24
"""Logits at once: 64 MB of float32, and several times that while they are judged."""


class LogitsSlice(NamedTuple):
    """Logits of consecutive positions of one sequence."""

    line: int
    """Which of the sequences."""
    first: int
    """Index of the first id whose successor they are about."""
    logits: Logits
    """Shape ``(N, V)``, float32."""


class RescoringModel:
    """A causal language model, loaded from a directory and never from a network.

    Args:
        directory: Holds the model in Hugging Face format, its weights as safetensors. No tokenizer
            is needed, and no code that lies there is run.
        dtype: What it computes in.
        device: Where.

    Raises:
        MissingPackageError: When torch or transformers is missing.
        ConfigError: When the directory holds no model, or there is no such device.
    """

    def __init__(
        self, directory: Path, *, dtype: DtypeName = "float32", device: DeviceName = "cpu"
    ) -> None:
        if not (directory / "config.json").is_file():
            raise ConfigError(f"--model={directory}: it has no config.json; name a model directory")
        # Read when transformers is imported.
        os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
        self._torch: Any = import_package("torch", needed_for=_NEEDED_FOR, remedy=_REMEDY)
        transformers: Any = import_package("transformers", needed_for=_NEEDED_FOR, remedy=_REMEDY)
        self._device = self._checked(device)
        self.dtype = dtype
        """What it computes in."""
        self._model = self._loaded(transformers, directory)
        self.vocab_size = int(self._model.get_output_embeddings().weight.shape[0])
        """Number of tokens that it knows."""
        limit = getattr(self._model.config, "max_position_embeddings", None)
        self.longest = int(limit or 2**31)
        """Most tokens of a text that it was made for."""
        named = inspect.signature(self._model.forward).parameters
        self._keeps_last = "logits_to_keep" in named

    def _checked(self, device: str) -> str:
        torch = self._torch
        present = {
            "cpu": True,
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
        }
        if not present.get(device, False):
            there = ", ".join(name for name, here in present.items() if here)
            raise ConfigError(f"--device={device}: not present here; choose one of {there}")
        return device

    def _loaded(self, transformers: Any, directory: Path) -> Any:
        safetensors: Any = import_package("safetensors", needed_for=_NEEDED_FOR, remedy=_REMEDY)
        try:
            with no_progress_bars_of(transformers.utils.logging):
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    directory,
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    dtype=getattr(self._torch, self.dtype),
                )
        except (*_UNLOADABLE, safetensors.SafetensorError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ConfigError(f"--model={directory}: it cannot be loaded: {reason}") from error
        return model.to(self._device).eval()

    def logits(self, sequences: Sequence[Any], first: Sequence[int]) -> Iterator[LogitsSlice]:
        """Yields the logits after every id, in slices of bounded size.

        A sequence that is longer than a slice is read piece by piece, with the keys and values of
        what came before.

        Args:
            sequences: Ids of each, as arrays of whole numbers; shorter ones are padded on the
                right, where nothing before looks.
            first: Of each, the index of the first id whose successor's logits are wanted.
        """
        torch = self._torch
        length = max(map(len, sequences))
        ids = torch.zeros((len(sequences), length), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(list(sequence), dtype=torch.long)
            mask[row, : len(sequence)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        piece = max(1, _MOST_LOGITS // (len(sequences) * self.vocab_size))
        wanted = min(first)
        cache = None
        for begin in range(0, length, piece):
            end = min(begin + piece, length)
            with torch.inference_mode():
                output = self._model(
                    input_ids=ids[:, begin:end],
                    attention_mask=mask[:, :end],
                    past_key_values=cache,
                    use_cache=length > piece,
                    **self._kept(end - max(begin, wanted)),
                )
            cache = output.past_key_values if length > piece else None
            logits = output.logits
            begin = end - logits.shape[1]
            for row, sequence in enumerate(sequences):
                start, stop = max(begin, first[row]), min(end, len(sequence))
                if start < stop:
                    part = logits[row, start - begin : stop - begin]
                    yield LogitsSlice(row, start, part.float().cpu().numpy())

    def _kept(self, count: int) -> dict[str, int]:
        return {"logits_to_keep": max(count, 1)} if self._keeps_last else {}
