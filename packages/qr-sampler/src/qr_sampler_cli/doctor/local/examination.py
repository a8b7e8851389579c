# SPDX-License-Identifier: Apache-2.0
"""Facts that only importing an engine reveals, and a token for real.

Runs in a separate process, which may hang or crash.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from qr_sampler_cli.doctor.examination import MARKER
from qr_sampler_cli.doctor.local.request import LocalRequest
from qr_sampler_cli.engines import EngineName
from qr_sampler_cli.findings.finding import in_one_line
from qr_sampler_cli.generation.run import GenerationRequest, GenerationRun, run_generation
from qr_sampler_cli.terminal.consoles import stdout_reserved

__all__ = ["LocalExamination", "examination", "main"]

PROMPT: Final = "The"
COMPILED: Final = "qr_sampler_accel.host.row_loops"
"""Module of loops that are compiled, and kept where all others are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExamination:
    """The result of the process; a field is empty if it was not reached."""

    failure: str = ""
    """Why the process did not finish."""
    import_error: str = ""
    """Why the engine or its adapter does not import."""
    devices: str = ""
    """What the engine can compute on."""
    accelerated: bool | None = None
    """Whether that is more than the processor; ``None`` if unknown."""
    devices_error: str = ""
    """Why that is unknown."""
    compile_cache: str | None = None
    """Where compiled loops are kept, empty if nowhere; ``None`` if nothing is compiled."""
    token: str = ""
    """The token that was generated, and how; empty if none was."""
    token_error: str = ""
    """Why none was, or what is wrong with its record."""
    seconds: float = 0.0
    """How long loading and generating have taken."""


def examination(request: LocalRequest) -> LocalExamination:
    """Imports an engine, asks it for its devices and, if told to, generates a token with it.

    Args:
        request: What to examine.
    """
    _, import_error = _attempt(lambda: _import(request))
    if import_error:
        return LocalExamination(import_error=import_error)
    devices, devices_error = _attempt(DEVICES[request.engine])
    text, accelerated = devices or ("", None)
    began_s = time.monotonic()
    token, token_error = _attempt(lambda: _token(request)) if request.token else ("", "")
    return LocalExamination(
        devices=text,
        accelerated=accelerated,
        devices_error=devices_error,
        compile_cache=_attempt(_compile_cache)[0],
        token=token or "",
        token_error=token_error,
        seconds=time.monotonic() - began_s,
    )


def _attempt(question: Callable[[], Any]) -> tuple[Any, str]:
    """Returns the result of *question*, or ``None`` and the reason."""
    try:
        return question(), ""
    # Engines can fail in any way; the reason is reported to the user.
    except (Exception, SystemExit) as error:
        return None, in_one_line(error)


def _import(request: LocalRequest) -> None:
    for name in request.known.modules:
        import_module(name)
    import_module(request.known.adapter.partition(":")[0])


def _of_transformers() -> tuple[str, bool]:
    torch: Any = import_module("torch")
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = ", ".join(dict.fromkeys(torch.cuda.get_device_name(i) for i in range(count)))
        return f"torch {torch.__version__}: {count} CUDA devices ({names})", True
    if torch.backends.mps.is_available():
        return f"torch {torch.__version__}: Apple's graphics unit (mps)", True
    return f"torch {torch.__version__}: the processor, {torch.get_num_threads()} threads", False


def _of_mlx() -> tuple[str, bool]:
    mlx: Any = import_module("mlx.core")
    device = mlx.default_device()
    accelerated = device.type == mlx.DeviceType.gpu
    return f"MLX {mlx.__version__}: {'the graphics unit' if accelerated else 'the processor'}", (
        accelerated
    )


def _of_llama_cpp() -> tuple[str, bool]:
    llama: Any = import_module("llama_cpp")
    offloads = bool(llama.llama_supports_gpu_offload())
    built = "with" if offloads else "without"
    return f"built {built} support for graphics units", offloads


DEVICES: Final[dict[str, Callable[[], tuple[str, bool]]]] = {
    "transformers": _of_transformers,
    "mlx": _of_mlx,
    "llama-cpp": _of_llama_cpp,
}
"""By engine, what tells what it computes on, and whether that is more than the processor."""


def _compile_cache() -> str | None:
    if find_spec("numba") is None or find_spec("qr_sampler_accel") is None:
        return None
    loops = vars(import_module(COMPILED)).values()
    kept = [str(loop.stats.cache_path or "") for loop in loops if hasattr(loop, "stats")]
    return kept[0] if kept else None


def _token(request: LocalRequest) -> str:
    """Returns a description of a token that was generated and recorded.

    Raises:
        ValueError: When its record is not as it should be.
    """
    with tempfile.TemporaryDirectory(prefix="qr-sampler-doctor-") as private:
        run = run_generation(
            GenerationRequest(
                model=request.model or "",
                prompts=(PROMPT,),
                max_tokens=1,
                variables={"QR_LEDGER_DIR": private},
                engine=EngineName(request.engine),
                engine_arguments=request.arguments,
            )
        )
    if run.discrepancies:
        raise ValueError("; ".join(run.discrepancies))
    return _described(run)


def _described(run: GenerationRun) -> str:
    (completion,) = run.completions
    token = f"token {completion.token_texts[0]!r} after {PROMPT!r} with {run.engine}"
    records = run.ledger.tokens
    if not records:
        (kind,) = run.ledger.without_entropy(completion.emission.request_key).values()
        return f"{token}, {kind}: no entropy has chosen it"
    (record,) = records
    origin = f"{record.source}, as a fallback" if record.fallback else str(record.source)
    return f"{token}, chosen by u = {record.u:.6f} from {origin}; it has one record"


def main() -> None:
    """Reads a request from standard input and writes its examination to standard output."""
    request = LocalRequest(**json.load(sys.stdin))
    with stdout_reserved():
        result = examination(request)
    print(MARKER + json.dumps(dataclasses.asdict(result)), flush=True)


if __name__ == "__main__":
    main()
