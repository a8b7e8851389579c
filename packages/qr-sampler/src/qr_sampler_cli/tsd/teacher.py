# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face model as a teacher: its own samples, and its logits along a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qr_sampler.errors import QRSamplerError
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.remedies import INSTALL_VLLM
from qr_sampler_cli.terminal.progress import no_progress_bars_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Teacher", "TeacherError"]

NEEDED_FOR: Final = "learning from a model"

SEQUENCES_AT_ONCE: Final = 64
"""Most sequences of a pass. One of a small model takes about as long for many as for one."""


class TeacherError(QRSamplerError, ValueError):
    """The model directory, or what is asked of the model, cannot be used."""


class Teacher:
    """A causal language model on the CPU, loaded from a directory and never from a network.

    Args:
        directory: Holds the model and its tokenizer in Hugging Face format.

    Raises:
        MissingPackageError: When torch or transformers is missing.
        TeacherError: When the directory holds no model.
    """

    def __init__(self, directory: Path) -> None:
        self.torch: Any = import_package("torch", needed_for=NEEDED_FOR, remedy=INSTALL_VLLM)
        transformers = import_package("transformers", needed_for=NEEDED_FOR, remedy=INSTALL_VLLM)
        if not (directory / "config.json").is_file():
            raise TeacherError(
                f"{directory} has no config.json: name a model directory; "
                "'qr-sampler tiny-model DIRECTORY' makes a small one"
            )
        try:
            with no_progress_bars_of(transformers.utils.logging):
                self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                    directory, local_files_only=True, dtype=self.torch.float32
                ).eval()
                self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                    directory, local_files_only=True
                )
        except (OSError, ValueError, KeyError) as error:
            raise TeacherError(f"{directory} holds no model that can be loaded: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Width of the logits, which may exceed the tokens that the tokenizer knows."""
        return int(self.model.config.vocab_size)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that the model was made for."""
        return int(getattr(self.model.config, "max_position_embeddings", 2**31))

    def encode(self, text: str) -> NDArray[np.int64]:
        """Returns the tokens of *text*, shape ``(N,)``."""
        import numpy as np

        ids = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return np.asarray(ids, dtype=np.int64)

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the logits of the token after each of *tokens*, shape ``(B, N, V)``.

        Args:
            tokens: Shape ``(B, N)``, sequences of at most :attr:`longest` tokens.
        """
        with self.torch.inference_mode():
            output = self.model(input_ids=self.torch.from_numpy(tokens), use_cache=False)
        return output.logits.float().numpy()  # type: ignore[no-any-return]

    def sample(
        self,
        count: int,
        length: int,
        *,
        seed: int,
        temperature: float = 1.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.int64]:
        """Returns sequences of the model's own, shape ``(count, length)``.

        They are material to learn from, so a seeded generator draws them. Each begins with the
        model's begin-of-text token, or with a random one where it has none, which is not part of
        the sequence; it goes on beyond an end-of-text token.

        Args:
            count: Sequences, at least 1.
            length: Tokens of each, at least 1 and below :attr:`longest`.
            seed: Of the generator.
            temperature: Divides the logits, above 0.
            progress: Told how many sequences are done, of how many.

        Raises:
            TeacherError: When *length* is more than the model can take.
        """
        import numpy as np

        if not 1 <= length < self.longest:
            raise TeacherError(f"length={length} must be from 1 to {self.longest - 1}")
        generator = self.torch.Generator().manual_seed(seed)
        done: list[NDArray[np.int64]] = []
        for begin in range(0, count, SEQUENCES_AT_ONCE):
            rows = min(SEQUENCES_AT_ONCE, count - begin)
            done.append(self._sampled(rows, length, generator, temperature))
            if progress is not None:
                progress(begin + rows, count)
        return np.concatenate(done)

    def _sampled(
        self, rows: int, length: int, generator: Any, temperature: float
    ) -> NDArray[np.int64]:
        torch = self.torch
        tokens, cache, columns = self._first_tokens(rows, generator), None, []
        with torch.inference_mode():
            for _ in range(length):
                output = self.model(input_ids=tokens, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                laws = torch.softmax(output.logits[:, -1].double() / temperature, dim=-1)
                tokens = torch.multinomial(laws, 1, generator=generator)
                columns.append(tokens)
        return torch.cat(columns, dim=1).numpy()  # type: ignore[no-any-return]

    def _first_tokens(self, rows: int, generator: Any) -> Any:
        begin = self.tokenizer.bos_token_id
        if begin is not None:
            return self.torch.full((rows, 1), begin)
        return self.torch.randint(len(self.tokenizer), (rows, 1), generator=generator)
