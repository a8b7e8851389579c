# SPDX-License-Identifier: Apache-2.0
r"""Compares health tests with a reference that reads one byte after the other.

Random and adversarial streams, cut into draws of any size, are judged byte by byte, by NumPy and by
whatever else is named: what is measured in each draw, the alarm and the state of the source have to
be the same to the last bit. A monitor that begins anew with every draw is compared, too, to show
that the streams tell.

    python campaigns/health_streams.py --streams 100000 --processes 2 \
        --measures qr_sampler_accel.host.health_pass:CompiledMeasures

A stream is a function of its number: ``--first N`` goes on where an earlier run was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module

from qr_sampler.health.measures import DrawMeasures, Measured, Measures
from qr_sampler.testing.health_streams import draws_of, streams_judged_otherwise

SHARD = 1000
"""Streams per piece of work."""


class ForgetsItsStream(DrawMeasures):
    """Begins anew with every draw."""

    def of(self, data: bytes) -> Measured:
        """Returns what the tests measure in *data* alone."""
        self.restart()
        return super().of(data)


def contender(name: str) -> Callable[[int], Measures]:
    """Returns what MODULE:NAME names."""
    module, _, attribute = name.partition(":")
    made: Callable[[int], Measures] = getattr(import_module(module), attribute)
    return made


def shard(first: int, end: int, names: tuple[str, ...]) -> tuple[int, int, list[int]]:
    """Returns how many draws and bytes some streams have, and which of them are judged otherwise.

    Args:
        first: Number of the first stream.
        end: Number after that of the last one.
        names: What is compared, each as MODULE:NAME.
    """
    sizes = [len(draw) for number in range(first, end) for draw in draws_of(number)]
    return (
        len(sizes),
        sum(sizes),
        streams_judged_otherwise(range(first, end), *map(contender, names)),
    )


def main() -> int:
    """Runs the comparison and returns how many of its two parts have failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--measures", nargs="*", default=[], metavar="MODULE:NAME")
    options = parser.parse_args()
    names = ("qr_sampler.health.measures:DrawMeasures", *options.measures)
    began, draws, size = time.monotonic(), 0, 0
    otherwise: list[int] = []
    starts = range(options.first, options.streams, SHARD)
    ends = [min(start + SHARD, options.streams) for start in starts]
    with ProcessPoolExecutor(options.processes) as pool:
        shards = pool.map(partial(shard, names=names), starts, ends)
        for end, (more, longer, found) in zip(ends, shards, strict=True):
            draws, size = draws + more, size + longer
            otherwise += found
            if end % (5 * SHARD) == 0:
                print(f"{end} streams, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{draws} draws with {size} bytes in all")
    print(f"{', '.join(names)}: {len(otherwise)} streams are judged otherwise {otherwise[:10]}")
    told = len(streams_judged_otherwise(range(100), ForgetsItsStream))
    print(f"a monitor that begins anew with every draw: {told} of the first 100 streams tell")
    failed = (otherwise != []) + (told == 0)
    print("failed" if failed else "passed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
