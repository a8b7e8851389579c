# SPDX-License-Identifier: Apache-2.0
"""An engine and whoever accepts its requests follow one `.env` file, wherever they work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

MOVE = """
    os.chdir(task["here"])

    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    llm = engine()
    os.chdir(task["elsewhere"])

    def length(**extra):
        params = SamplingParams(max_tokens=3, ignore_eos=True, extra_args=extra)
        return len(llm.generate(["x"], params, use_tqdm=False)[0].outputs[0].token_ids)

    os.environ["QR_TOP_K"] = "7"
    try:
        length(qr_sample_count=70000)
        refused = ""
    except VLLMValidationError as error:
        refused = str(error)
    del os.environ["QR_TOP_K"]
    result({"refused": refused, "tokens": length(qr_sample_count=70000)})
"""


def test_a_request_is_judged_by_the_settings_of_its_engine(
    offline_engine: Callable[[str], Any], tmp_path: Path
) -> None:
    """Only the file where the engine was started allows blocks of this length."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder, largest in ((here, 70_000), (elsewhere, 60_000)):
        folder.mkdir()
        (folder / ".env").write_text(f"QR_MAX_SAMPLE_COUNT={largest}\n")
    engine = offline_engine("v1")
    task = {"here": str(here), "elsewhere": str(elsewhere)}
    result = engine.result(MOVE, task)
    assert "different settings (QR_TOP_K)" in result["refused"]
    assert result["tokens"] == 3
    tokens = [line for line in engine.lines() if line["kind"] == "token"]
    assert {line["block_bytes"] for line in tokens} == {70_000}
