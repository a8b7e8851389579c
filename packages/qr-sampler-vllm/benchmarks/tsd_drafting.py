# SPDX-License-Identifier: Apache-2.0
"""Tokens per pass of the model and wall-clock time with TSD drafts, against no speculation.

``python -m benchmarks.tsd_drafting DIRECTORY`` distils a bigram table from the tiny model in
DIRECTORY and has it draft in engines of their own, all on this machine and one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.engine_process import ENVIRONMENT, OPTIONS
from qr_sampler.records.reader import read_ledger

__all__ = ["main"]

SAMPLED_TEXTS: Final = 48
TEXT_TOKENS: Final = 200
HEAD_TOKENS: Final = 64
PROMPT: Final = "Light is"
ROUNDS: Final = 5


class Contender(NamedTuple):
    """One engine."""

    mode: str
    """``none``, or a mode of TSD."""
    verifier: str
    """Rule of the canonical mode."""
    drafts: int
    """Drafts per pass."""

    @property
    def title(self) -> str:
        """How the table calls it."""
        if self.mode == "none":
            return "no speculation"
        return f"{self.mode}, {self.verifier}" if self.mode == "canonical" else self.mode


CONTENDERS: Final = (
    Contender("none", "", 0),
    *(Contender("exact_match", "", drafts) for drafts in (1, 2, 4)),
    *(Contender("canonical", rule, drafts) for rule in ("token", "block") for drafts in (1, 2, 4)),
)


def main() -> int:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="directory of the tiny model")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--batch", type=int, default=1, help="sequences at a time")
    parser.add_argument("--tokens", type=int, default=200, help="tokens of each sequence")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        generate(arguments, Contender(*arguments.worker))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        proposer = Path(folder, "bigram.npz")
        distil(arguments.model, arguments.temperature, proposer)
        found = [(one, measured(one, arguments, proposer)) for one in CONTENDERS]
    print("\n".join(table(found)))
    return 0


def distil(model_directory: Path, temperature: float, path: Path) -> None:
    """Saves a table that has learnt from texts of the model at *temperature*."""
    import torch
    from transformers import AutoModelForCausalLM

    from qr_sampler_tsd.proposers import save_proposer
    from qr_sampler_tsd.train import BigramDistiller, Examples

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    vocab_size = model.config.vocab_size
    distiller = BigramDistiller(vocab_size)
    with torch.no_grad():
        starts = torch.randint(vocab_size, (SAMPLED_TEXTS, 1))
        texts = model.generate(
            starts,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            min_new_tokens=TEXT_TOKENS,
            max_new_tokens=TEXT_TOKENS,
        )
        for text in texts:
            logits = model(text[None]).logits[0]
            distiller.add(
                Examples.from_logits(
                    text.numpy(),
                    logits.numpy(),
                    context_tokens=1,
                    kept=vocab_size,
                    temperature=temperature,
                )
            )
    save_proposer(path, distiller.table(HEAD_TOKENS))


def measured(contender: Contender, arguments: argparse.Namespace, proposer: Path) -> dict[str, Any]:
    """Returns what one engine did, in a process of its own."""
    print(f"... {contender.title}, {contender.drafts} drafts", file=sys.stderr)
    with tempfile.TemporaryDirectory() as ledger:
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "QR_FIXED_TEMPERATURE": str(arguments.temperature),
            "QR_LEDGER_DIR": ledger,
        }
        if contender.mode != "none":
            environment |= {"QR_TSD_MODE": contender.mode, "QR_TSD_PROPOSER": str(proposer)}
        if contender.verifier:
            environment["QR_TSD_VERIFIER"] = contender.verifier
        command = [sys.executable, "-m", "benchmarks.tsd_drafting", str(arguments.model)]
        command += [f"--batch={arguments.batch}", f"--tokens={arguments.tokens}"]
        command += [f"--worker={json.dumps(contender)}"]
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        seconds = json.loads(done.stdout.splitlines()[-1])
        (file,) = Path(ledger).glob("*.jsonl")
        return {"seconds": seconds, **passes(file)}


def generate(arguments: argparse.Namespace, contender: Contender) -> None:
    """Prints the seconds that each round of generation took, by the clock and of the processor."""
    from vllm import LLM, SamplingParams

    options: dict[str, Any] = {}
    if contender.mode != "none":
        options = {
            "worker_cls": "qr_sampler_vllm.tsd.worker.TSDCPUWorker",
            "speculative_config": {
                "method": "custom_class",
                "model": "qr_sampler_vllm.tsd.drafter.TSDDrafter",
                "num_speculative_tokens": contender.drafts,
            },
        }
    llm = LLM(
        model=str(arguments.model),
        max_model_len=512,
        max_num_seqs=arguments.batch,
        **OPTIONS,
        **options,
    )
    params = SamplingParams(max_tokens=arguments.tokens, ignore_eos=True)
    seconds = []
    for _ in range(1 + ROUNDS):
        before = time.perf_counter(), time.process_time()
        llm.generate([PROMPT] * arguments.batch, params, use_tqdm=False)
        seconds.append((time.perf_counter() - before[0], time.process_time() - before[1]))
    # The first round warms up.
    print(json.dumps(seconds[1:]))


def passes(ledger: Path) -> dict[str, float]:
    """Returns tokens per pass of the model and the share of accepted drafts, of all sequences."""
    tokens, seen = 0, set()
    outcomes: dict[str | None, int] = {}
    for line in _tokens(ledger):
        tokens += 1
        # Rows of one step share the time at which their logits were complete.
        seen.add((line["sequence"], line["t_logits_ns"]))
        outcomes[line["outcome"]] = outcomes.get(line["outcome"], 0) + 1
    judged = outcomes.get("accepted", 0) + outcomes.get("corrected", 0)
    return {
        "tokens_per_pass": tokens / len(seen),
        "acceptance": outcomes.get("accepted", 0) / judged if judged else 0.0,
    }


def _tokens(ledger: Path) -> Iterator[dict[str, Any]]:
    return (line for line in read_ledger(ledger) if line["kind"] == "token")


def table(found: list[tuple[Contender, dict[str, Any]]]) -> Iterator[str]:
    """Yields the lines of a Markdown table."""
    plain = best(found[0][1])
    yield "| engine | drafts | accepted drafts | tokens per pass | time | processor time |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for contender, one in found:
        wall, processor = (own / base for own, base in zip(best(one), plain, strict=True))
        acceptance = f"{one['acceptance']:.3f}" if contender.drafts else "-"
        yield (
            f"| {contender.title} | {contender.drafts} | {acceptance} "
            f"| {one['tokens_per_pass']:.2f} | {wall:.2f} | {processor:.2f} |"
        )


def best(measurement: dict[str, Any]) -> tuple[float, float]:
    """Returns the shortest time of a round, by the clock and of the processor."""
    wall, processor = zip(*measurement["seconds"], strict=True)
    return min(wall), min(processor)


if __name__ == "__main__":
    sys.exit(main())
