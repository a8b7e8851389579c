# SPDX-License-Identifier: Apache-2.0
"""All sampling units at the gate, how fast they are, and how well p-bits mix.

Prints three tables: the gate with throughput, the total variation of converters, and that of Gibbs
sampling by number of sweeps, computed and measured. The seed fixes everything but the times. It
ends with 1 when a unit that should pass does not, or one that should fail does not.

    python campaigns/gate.py --samples 200000
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence

import numpy as np

from qr_sampler_tsd import HeadTailLaw, Psi, SeededUniforms
from qr_sampler_tsd.errors import MissingExtraError
from qr_sampler_tsd.gate import GateReport, run_gate
from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.tsu import (
    PBitGibbsTSU,
    PBitTreeTSU,
    SimTSU,
    ThrmlTreeTSU,
    ThrmlTSU,
    TSUAdapter,
    sweeps_needed,
)

FAITHFUL: tuple[TSUAdapter, ...] = (SimTSU(), PBitTreeTSU(), PBitTreeTSU(12), PBitGibbsTSU(9))
UNFAITHFUL: tuple[TSUAdapter, ...] = (PBitTreeTSU(8), PBitGibbsTSU(3, 1.0))
LLM_LIKE = ("flat", "warm", "cold")
BATCH = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the campaign and returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=200_000, help="draws per payload")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=30, help="of each timed call")
    options = parser.parse_args(arguments)
    wrong = print_gate(options.samples, options.seed, options.repetitions)
    print_converters()
    print_mixing(options.samples, options.seed)
    for unit in wrong:
        print(f"not as it should be: {unit}", file=sys.stderr)
    return 1 if wrong else 0


def print_gate(samples: int, seed: int, repetitions: int) -> list[str]:
    """Prints the first table and returns the units with an unexpected outcome."""
    faithful = [*FAITHFUL, *thrml_units()]
    wrong, rows = [], []
    for unit in (*faithful, *UNFAITHFUL):
        progress(f"gate of {unit.name}")
        report = run_gate(unit, SeededUniforms(seed), samples)
        if report.passed is not (unit in faithful):
            wrong.append(str(report))
        rows.append([f"`{unit.name}`", *outcome(report), *speeds(unit, repetitions)])
    print_table(
        ("unit", "gate", "smallest p", "largest TV / bound", "draws/s, batch", "draws/s, single"),
        rows,
    )
    return wrong


def thrml_units() -> list[TSUAdapter]:
    """Returns the units that need thrml where it is installed."""
    try:
        return [ThrmlTSU(), ThrmlTreeTSU()]
    except MissingExtraError as error:
        progress(f"left out: {error}")
        return []


def outcome(report: GateReport) -> tuple[str, str, str]:
    """Returns verdict, smallest p-value and the total variation that is nearest to its bound."""
    smallest = min(p for result in report.results for p in result.p_values.values())
    tightest = max(
        report.results, key=lambda it: it.total_variation / (it.sampling_floor + it.allowance)
    )
    bound = tightest.sampling_floor + tightest.allowance
    verdict = "passed" if report.passed else "failed"
    return verdict, f"{smallest:.1e}", f"{tightest.total_variation:.4f} / {bound:.4f}"


def speeds(unit: TSUAdapter, repetitions: int) -> tuple[str, str]:
    """Returns draws per second in a batch and one by one, on the payload ``flat``."""
    psi = golden_payloads()["flat"]
    batch, single = (rate(unit, psi, size, repetitions) for size in (BATCH, 1))
    return f"{batch:,.0f}", f"{single:,.0f}"


def rate(unit: TSUAdapter, psi: Psi, batch_size: int, repetitions: int) -> float:
    """Returns draws per second in the fastest of *repetitions* calls after a first one."""
    uniforms, times = SeededUniforms(1), []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        unit.sample_categorical(psi, batch_size, uniforms)
        times.append(time.perf_counter() - start)
    return batch_size / min(times[1:])


def print_converters() -> None:
    """Prints the total variation between the tree behind a converter and F(psi)."""
    rows = []
    for bits in (6, 8, 10, 12, 14):
        unit = PBitTreeTSU(bits)
        laws = [golden_payloads()[name] for name in LLM_LIKE]
        found = [f"{variation(unit.law(psi), psi.law()):.1e}" for psi in laws]
        rows.append([str(bits), *found, f"{unit.tv_bound(64):.1e}"])
    print_table(("bits of the converter", *LLM_LIKE, "bound"), rows)


def print_mixing(samples: int, seed: int) -> None:
    """Prints the total variation after each number of sweeps, computed / measured."""
    rows = []
    for sweeps in (1, 2, 3, 4, 6, 8):
        progress(f"mixing after {sweeps} sweeps")
        row = [str(sweeps)]
        for name in LLM_LIKE:
            psi, unit = golden_payloads()[name], PBitGibbsTSU(sweeps, 1.0)
            computed = variation(unit.law(psi), psi.law())
            row.append(f"{computed:.4f} / {measured(unit, psi, samples, seed):.4f}")
        rows.append(row)
    floors = (sampling_noise(golden_payloads()[name], samples, seed) for name in LLM_LIKE)
    rows.append(["exact draws", *(f"0 / {floor:.4f}" for floor in floors)])
    for target in (1e-3, 1e-6):
        needed = (sweeps_needed(golden_payloads()[name], target) for name in LLM_LIKE)
        rows.append([f"needed for {target:g}", *map(str, needed)])
    print_table(("sweeps", *LLM_LIKE), rows)


def sampling_noise(psi: Psi, samples: int, seed: int) -> float:
    """Returns the total variation that exact draws show."""
    return measured(SimTSU(), psi, samples, seed)


def measured(unit: TSUAdapter, psi: Psi, samples: int, seed: int) -> float:
    """Returns the total variation between the frequencies of the cells and F(psi)."""
    law, uniforms = psi.law(), SeededUniforms(seed)
    counts = np.zeros(law.ids.size + 1)
    for size in batches(samples):
        tokens = unit.sample_categorical(psi, size, uniforms).tokens
        order = np.argsort(law.ids)
        places = np.searchsorted(law.ids[order], tokens).clip(max=law.ids.size - 1)
        hits = np.where(law.ids[order][places] == tokens, order[places], law.ids.size)
        counts += np.bincount(hits, minlength=counts.size)
    return 0.5 * float(np.abs(counts / samples - law.cell_probs).sum())


def batches(samples: int) -> Iterable[int]:
    """Yields the sizes of batches that make up *samples*."""
    for done in range(0, samples, BATCH):
        yield min(BATCH, samples - done)


def variation(one: HeadTailLaw, other: HeadTailLaw) -> float:
    """Returns the total variation between two distributions of the same head and tail."""
    return 0.5 * float(np.abs(one.cell_probs - other.cell_probs).sum())


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def progress(line: str) -> None:
    """Says on the standard error stream what is being done."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
