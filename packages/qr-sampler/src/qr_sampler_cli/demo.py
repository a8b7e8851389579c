# SPDX-License-Identifier: Apache-2.0
"""The whole system at work: an entropy server, a small model, real vLLM, and the records of it.

``python -m qr_sampler_cli.demo`` exits with 0 only if every token came from the server and has
exactly one record.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from qr_sampler import create_source
from qr_sampler.entropy import EntropySource
from qr_sampler.errors import EntropyUnavailableError
from qr_sampler_cli.commands.tiny_model import prepare_tiny_model
from qr_sampler_cli.environment import environment
from qr_sampler_cli.failures import ExitCode, reports_errors
from qr_sampler_cli.generation.records_file import RecordsFile
from qr_sampler_cli.generation.report import print_summary, print_texts, verdict
from qr_sampler_cli.generation.run import GenerationRequest, run_generation
from qr_sampler_cli.server_process import entropy_server
from qr_sampler_cli.terminal.progress import stage
from qr_sampler_cli.tiny_model.directory import DEFAULT_STEPS

__all__ = ["demo", "main"]

SOURCE: Final = "quantum_grpc"
PROMPTS: Final = ("The Light of the Sun", "By the Refraction of the Prism")


def default_directory() -> Path:
    """Returns where the demo keeps model and records: ``QR_DEMO_DIR`` or the user's cache."""
    if chosen := os.environ.get("QR_DEMO_DIR"):
        return Path(chosen)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "qr-sampler" / "demo"


@reports_errors
def demo(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="Texts to continue.")
    ] = None,
    *,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per prompt.")] = 32,
    directory: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep the model and the records; QR_DEMO_DIR or a cache by default."
        ),
    ] = None,
    training_steps: Annotated[
        int, typer.Option(min=1, help="Training steps of the model, if it has to be trained.")
    ] = DEFAULT_STEPS,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show vLLM's log.")] = False,
) -> None:
    """Generate text with real vLLM, every token chosen by an entropy server over gRPC."""
    place = directory or default_directory()
    records = _new_records_file(place / "records")
    model = place / "tiny-model"
    typer.echo(prepare_tiny_model(model, steps=training_steps), err=True)
    with entropy_server() as address:
        variables = deployment(address)
        with environment(variables):
            wait_for_draw(create_source(SOURCE), address)
        request = GenerationRequest(
            model=str(model),
            prompts=tuple(prompts or PROMPTS),
            max_tokens=max_tokens,
            variables=variables,
            verbose=verbose,
        )
        run = run_generation(request, records=records)
    print_texts(run, table=True)
    status = verdict(run, require_primary=True)
    print_summary(run, records=records.path)
    if status is not ExitCode.OK:
        raise typer.Exit(status)


def deployment(address: str) -> dict[str, str]:
    """Returns the settings with which the server at *address* chooses every token."""
    return {
        "QR_ENTROPY_SOURCE_TYPE": SOURCE,
        "QR_FALLBACK_MODE": "system",
        "QR_GRPC_SERVER_ADDRESS": address,
        "QR_GRPC_MODE": "unary",
        "QR_GRPC_PROFILE": "qr_entropy",
        "QR_GRPC_METHOD_PATH": "/qr_entropy.EntropyService/GetEntropy",
        # Where the model and the server share a small machine, pauses beyond 5 ms are no failures.
        "QR_CB_MIN_TIMEOUT_MS": "2000",
        # gRPC is in use in this process already, so the engine cannot be a fork of it.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def wait_for_draw(source: EntropySource, address: str) -> None:
    """Returns once *source* has really drawn a byte, and closes it.

    Raises:
        EntropyUnavailableError: When the server does not answer.
    """
    with stage(f"asking the entropy server at {address} for a byte"):
        try:
            status = source.probe()
        finally:
            source.close()
    if not status.available:
        raise EntropyUnavailableError(source.name, status.reason)


def _new_records_file(directory: Path) -> RecordsFile:
    directory.mkdir(parents=True, exist_ok=True)
    name = f"demo-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.jsonl"
    return RecordsFile(directory / name, force=False)


def main() -> None:
    """Runs the demo as a command of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
    app.command()(demo)
    app(prog_name="python -m qr_sampler_cli.demo")


if __name__ == "__main__":
    main()
