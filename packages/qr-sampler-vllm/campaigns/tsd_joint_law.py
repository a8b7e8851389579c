# SPDX-License-Identifier: Apache-2.0
"""Compares the joint law of five tokens in real engines with the model's, however it is drafted.

Each mode of verification, each sampling unit and each kind of proposer gets an engine of its own
with four drafts. Its texts, under two requests that mask and truncate, are tested against the law
that Transformers and the formulas give, by Pearson's chi-square at a rate of false alarms of 1e-9.
The power is computed: a verifier that lets one draft in five pass unjudged would not. And all bytes
that the source has delivered are in records or discards.

    python campaigns/tsd_joint_law.py MODEL            about ten minutes on two cores
    python campaigns/tsd_joint_law.py MODEL --only canonical

It needs vLLM and a model that ``qr-sampler tiny-model`` has made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qr_sampler.records.reader import read_ledger

ALLOWED: Final = (300, 301, 302, 303)
PROMPT: Final = (300, 302, 300, 301, 300, 302)
"""Repeats itself, so that a lookup in it finds something."""
TOKENS: Final = 5
TEXTS: Final = 4000
RATE: Final = 1e-9
UNJUDGED: Final = 0.2

REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "T = 0.8, top-k 3": {"qr_fixed_temperature": 0.8, "qr_top_k": 3},
    "T = 0.5, top-p 0.95": {"qr_fixed_temperature": 0.5, "qr_top_p": 0.95},
}


class Case(NamedTuple):
    """One way of drafting."""

    mode: str
    verifier: str
    unit: str
    proposer: str

    @property
    def title(self) -> str:
        """How the report calls it."""
        parts = (self.mode, self.verifier, self.unit, self.proposer)
        return ", ".join(part for part in parts if part)


PROPOSERS: Final = ("TABLE", "HEAD", "ngram", "ngram+TABLE")
UNITS: Final = ("simulated", "pbit_tree", "gibbs:sweeps=64", "thrml", "thrml_tree")


def cases() -> Iterator[Case]:
    """Yields every mode with every proposer, and every unit."""
    for proposer in PROPOSERS:
        yield Case("exact_match", "", "", proposer)
    for proposer, verifier in itertools.product(PROPOSERS, ("token", "block")):
        yield Case("canonical", verifier, "simulated", proposer)
    for unit in UNITS[1:]:
        yield Case("canonical", "block", unit, "ngram+TABLE")


def main() -> int:
    """Runs every case and returns how many have failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", default="", help="run the cases whose title holds this text")
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.model, arguments.texts)
        return 0
    chosen = [case for case in cases() if arguments.only in case.title]
    laws, failures = laws_of(arguments.model), 0
    with tempfile.TemporaryDirectory() as folder:
        save_proposers(arguments.model, Path(folder))
        for number, case in enumerate(chosen, start=1):
            began = time.monotonic()
            outcome = judged(case, arguments, Path(folder), laws)
            failures += not outcome.startswith("passed")
            seconds = time.monotonic() - began
            print(
                f"{number} of {len(chosen)}: {case.title}: {outcome}, {seconds:.0f} s", flush=True
            )
    return failures


def judged(
    case: Case, arguments: argparse.Namespace, folder: Path, laws: dict[str, NDArray[np.float64]]
) -> str:
    """Returns in words what became of one case."""
    found = run(case, arguments, folder)
    if found is None:
        return "skipped: the extra thrml is not installed"
    words = []
    for name, law in laws.items():
        statistic, critical, missed = tested(found["texts"][name], law)
        if missed > RATE:
            return f"FAILED: {name}: no power, {missed:.2g}"
        if not statistic < critical:
            return f"FAILED: {name}: chi-square {statistic:.0f}, critical {critical:.0f}"
        words.append(f"{statistic:.0f} of {critical:.0f}")
    if found["recorded"] != found["drawn"]:
        return f"FAILED: {found['drawn']} bytes drawn, {found['recorded']} in records"
    return f"passed: chi-square {', '.join(words)}; {found['tokens_per_pass']:.2f} tokens per pass"


def tested(texts: list[list[int]], law: NDArray[np.float64]) -> tuple[float, float, float]:
    """Returns Pearson's statistic, its critical value and how often a wrong verifier passes."""
    places = {token: index for index, token in enumerate(ALLOWED)}
    counts = Counter(tuple(places[token] for token in text) for text in texts)
    observed = np.zeros(law.shape)
    for text, count in counts.items():
        observed[text] = count
    if observed[law == 0].any():
        return math.inf, 0.0, 0.0
    expected, total = law * len(texts), len(texts)
    common = expected >= 5

    def cells(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.append(values[common], values[~common].sum())

    base = cells(expected)
    critical = float(stats.chi2.isf(RATE, base.size - 1))
    shift = cells(unjudged(law) * total) - base
    missed = float(stats.ncx2.cdf(critical, base.size - 1, float((shift**2 / base).sum())))
    return float(((cells(observed) - base) ** 2 / base).sum()), critical, missed


def unjudged(law: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the law of texts of which one token in five is any of those that can follow."""
    wrong: NDArray[np.float64] = np.ones(law.shape)
    for text in np.ndindex(*law.shape):
        for length in range(TOKENS):
            row = law[text[:length]].reshape(len(ALLOWED), -1).sum(axis=1)
            if not row.sum():
                wrong[text] = 0.0
                break
            row = row / row.sum()
            possible = row > 0
            mixed = (1 - UNJUDGED) * row + UNJUDGED * possible / possible.sum()
            wrong[text] *= mixed[text[length]]
    return wrong


def laws_of(model: Path) -> dict[str, NDArray[np.float64]]:
    """Returns the joint law of the tokens under each request, shape ``(4, ...)``."""
    import torch
    from transformers import AutoModelForCausalLM

    scorer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    texts = np.array(list(itertools.product(ALLOWED, repeat=TOKENS - 1)))
    prompts = np.tile(PROMPT, (len(texts), 1))
    with torch.no_grad():
        logits = scorer(torch.from_numpy(np.hstack([prompts, texts]))).logits
    rows = logits[:, len(PROMPT) - 1 :, list(ALLOWED)].double().numpy()
    rows = rows.reshape(*[len(ALLOWED)] * (TOKENS - 1), TOKENS, len(ALLOWED))
    return {name: _joint(rows, options) for name, options in REQUESTS.items()}


def _joint(rows: NDArray[np.float64], options: dict[str, Any]) -> NDArray[np.float64]:
    joint = np.ones([len(ALLOWED)] * TOKENS)
    for text in np.ndindex(*joint.shape):
        for length in range(TOKENS):
            law = _law(rows[text[:-1]][length], options)
            joint[text] *= law[text[length]]
    return joint


def _law(row: NDArray[np.float64], options: dict[str, Any]) -> NDArray[np.float64]:
    """Temperature, top-k and top-p, written down once more."""
    weights = np.exp((row - row.max()) / options["qr_fixed_temperature"])
    order = np.argsort(-weights, kind="stable")
    kept = order[: options.get("qr_top_k", len(row))]
    reached = np.cumsum(weights[kept]) / weights[kept].sum()
    kept = kept[: int(np.searchsorted(reached, options.get("qr_top_p", 1.0) - 1e-12)) + 1]
    law = np.zeros(len(row))
    law[kept] = weights[kept] / weights[kept].sum()
    return law


def save_proposers(model: Path, folder: Path) -> None:
    """Saves a table and a head that think of the tokens that are allowed."""
    from qr_sampler_tsd import craft_relative_psi
    from qr_sampler_tsd.proposers import BigramProposer, HeadProposer, HeadWeights, save_proposer

    vocab_size = int(json.loads((model / "config.json").read_text("utf-8"))["vocab_size"])
    rng = np.random.default_rng(1)

    def law() -> NDArray[np.float64]:
        masses = np.full(vocab_size, 0.1 / vocab_size)
        masses[list(ALLOWED)] = rng.dirichlet(np.full(len(ALLOWED), 2.0))
        normalised: NDArray[np.float64] = masses / masses.sum()
        return normalised

    rows = {token: craft_relative_psi(law(), 8) for token in ALLOWED}
    table = BigramProposer.from_payloads(craft_relative_psi(law(), 8), rows, 1.0)
    save_proposer(folder / "TABLE", table)
    weights = HeadWeights.initial(law(), context_tokens=2, width=8, buckets=64, rng=1)
    save_proposer(folder / "HEAD", HeadProposer(weights, 8, temperature=1.0))


def run(case: Case, arguments: argparse.Namespace, folder: Path) -> dict[str, Any] | None:
    """Returns what one engine did, in a process of its own; ``None`` where its unit cannot run."""
    if "thrml" in case.unit:
        try:
            import thrml  # noqa: F401
        except ImportError:
            return None
    proposer = case.proposer.replace("TABLE", str(folder / "TABLE")).replace(
        "HEAD", str(folder / "HEAD")
    )
    with tempfile.TemporaryDirectory() as ledger:
        environment = {
            **os.environ,
            "VLLM_USE_V2_MODEL_RUNNER": "0",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "QR_ENTROPY_SOURCE_TYPE": "system",
            "QR_SAMPLE_COUNT": "64",
            "QR_LEDGER_DIR": ledger,
            "QR_LEDGER_MODEL_DIGEST": "false",
            "QR_TSD_MODE": case.mode,
            "QR_TSD_PROPOSER": proposer,
        }
        if case.mode == "canonical":
            environment |= {"QR_TSD_VERIFIER": case.verifier, "QR_TSD_UNIT": case.unit}
        command = [sys.executable, __file__, str(arguments.model), f"--texts={arguments.texts}"]
        done = subprocess.run(
            [*command, "--serve=1"], env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        answer = next(x for x in done.stdout.splitlines() if x.startswith("answer "))
        found: dict[str, Any] = json.loads(answer.removeprefix("answer "))
        (file,) = Path(ledger).glob("*.jsonl")
        return {**found, **accounted(file)}


def accounted(ledger: Path) -> dict[str, float]:
    """Returns the bytes of records and discards, and the tokens per pass."""
    recorded, tokens, passes = 0, 0, set()
    for line in read_ledger(ledger):
        if line["kind"] in ("token", "discard"):
            recorded += line["block_bytes"]
        if line["kind"] == "token":
            tokens += 1
            passes.add((line["sequence"], line["t_logits_ns"]))
    return {"recorded": recorded, "tokens_per_pass": tokens / len(passes)}


def serve(model: Path, count: int) -> None:
    """Prints the texts of one engine, and how many bytes its source has delivered."""
    from vllm import LLM, SamplingParams

    import qr_sampler_vllm
    from qr_entropy_sources.system import SystemEntropySource

    drawn = 0
    genuine = SystemEntropySource.get_random_bytes

    def counted(self: Any, n: int) -> bytes:
        nonlocal drawn
        drawn += n
        return genuine(self, n)

    SystemEntropySource.get_random_bytes = counted  # type: ignore[method-assign]
    llm = LLM(
        model=str(model),
        enforce_eager=True,
        dtype="float32",
        max_model_len=128,
        max_num_seqs=64,
        enable_prefix_caching=False,
        distributed_executor_backend="uni",
        worker_cls="qr_sampler_vllm.tsd.worker.TSDCPUWorker",
        speculative_config={
            "method": "custom_class",
            "model": "qr_sampler_vllm.tsd.drafter.TSDDrafter",
            "num_speculative_tokens": 4,
        },
    )
    drawn, texts = 0, {}
    for name, options in REQUESTS.items():
        params = SamplingParams(
            max_tokens=TOKENS,
            ignore_eos=True,
            allowed_token_ids=list(ALLOWED),
            extra_args=options,
        )
        prompt = {"prompt_token_ids": list(PROMPT)}
        outputs = llm.generate([prompt] * count, [params] * count, use_tqdm=False)
        texts[name] = [list(output.outputs[0].token_ids) for output in outputs]
    qr_sampler_vllm.flush_records()
    print("answer", json.dumps({"texts": texts, "drawn": drawn}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
