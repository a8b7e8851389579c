# SPDX-License-Identifier: Apache-2.0
"""Whether memory of large answers is used again, counted in page faults of a fresh process."""

from __future__ import annotations

import platform
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back by this rule"
)

COPIES_OF_AN_ANSWER = """
    import resource, sys
    from qr_sampler_grpc.connection.large_blocks import keep_large_blocks

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def answer() -> None:
        data = b"x" * 1_310_720
        copies = [data + b"y" for _ in range(3)]

    if sys.argv[1] == "kept":
        before = faults()
        keep_large_blocks()
        assert faults() - before < 100, "the block itself was written to"
    for _ in range(10):
        answer()
    before = faults()
    for _ in range(20):
        answer()
    print((faults() - before) // 20)
"""


def test_an_answer_finds_the_memory_of_the_one_before(run_python: Callable[..., str]) -> None:
    pages = 1_310_720 // 4096
    assert int(run_python(COPIES_OF_AN_ANSWER, "given back")) > pages
    assert int(run_python(COPIES_OF_AN_ANSWER, "kept")) < pages // 10
