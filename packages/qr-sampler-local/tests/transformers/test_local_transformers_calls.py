# SPDX-License-Identifier: Apache-2.0
"""The ways in which people call Transformers: streams, threads, pipelines, caches, devices."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import ConfigError, EntropySource, Settings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class Streamer:
    """Keeps what it is handed, and fails on demand."""

    def __init__(self, fail_at: int = 0) -> None:
        self.puts: list[list[int]] = []
        self.ended = False
        self._fail_at = fail_at

    def put(self, value: Any) -> None:
        self.puts.append(value.reshape(-1).tolist())
        if len(self.puts) == self._fail_at:
            raise RuntimeError("the reader has hung up")

    def end(self) -> None:
        self.ended = True


def test_a_streamer_gets_the_prompt_and_every_token(run: Any, prompts: Any) -> None:
    own, streamer = run(), Streamer()
    output = own.generate(prompts(4)[0], max_new_tokens=5, streamer=streamer)
    assert streamer.puts[0] == output[0, :4].tolist()
    assert streamer.puts[1:] == output[:, 4:].T.tolist()
    assert streamer.ended
    own.check(output[:, 4:].tolist())


@pytest.mark.parametrize("fail_at", [2, 4, 6])
def test_a_streamer_that_fails_loses_no_record(run: Any, prompts: Any, fail_at: int) -> None:
    """The first put is the prompt, the sixth the last token."""
    own, streamer = run(), Streamer(fail_at)
    with pytest.raises(RuntimeError, match="hung up"):
        own.generate(prompts(4)[0], max_new_tokens=5, streamer=streamer)
    handed_over = [token for (token,) in streamer.puts[1:]]
    assert len(handed_over) == fail_at - 1
    own.check([handed_over])


def test_a_text_streamer_runs_in_another_thread(run: Any, tokenizer: Any) -> None:
    own = run()
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    streamer = transformers.TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=30)
    arguments = {**inputs, "streamer": streamer, "max_new_tokens": 6, "pad_token_id": 0}
    thread = threading.Thread(target=own.sampler.generate, kwargs=arguments)
    thread.start()
    text = "".join(streamer)
    thread.join(30)
    (tokens,) = own.texts()
    assert text == tokenizer.decode(tokens)
    own.check([tokens])


class FailingCriterion(transformers.StoppingCriteria):
    """Raises when three tokens are there."""

    def __init__(self, length: int, error: BaseException) -> None:
        self._length = length
        self._error = error

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        if input_ids.shape[1] == self._length + 3:
            raise self._error
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_generation_that_is_aborted_keeps_its_records(
    run: Any, prompts: Any, error: BaseException
) -> None:
    """Nobody has got the third token, for which there is a discard."""
    own = run()
    with pytest.raises(type(error)):
        own.generate(
            prompts(4, 4)[0],
            max_new_tokens=9,
            stopping_criteria=[FailingCriterion(4, error)],
        )
    assert [line["reason"] for line in own.kind("discard")] == ["not_emitted"] * 2
    assert {line["reason"] for line in own.kind("end")} == {"departed"}
    texts = own.texts()
    assert [len(text) for text in texts] == [2, 2]
    own.check(texts)


def test_the_sampler_goes_on_after_an_error(run: Any, prompts: Any) -> None:
    own = run()
    with pytest.raises(RuntimeError):
        own.generate(prompts(4)[0], max_new_tokens=5, streamer=Streamer(3))
    output = own.generate(prompts(5)[0], max_new_tokens=4)
    assert own.texts()[1] == output[0, 5:].tolist()


def test_two_threads_share_a_sampler(run: Any, prompts: Any) -> None:
    own = run()
    ids, mask = prompts(3, 6)

    def generate(number: int) -> list[list[int]]:
        options = [{"request_key": f"{number}.{row}"} for row in range(2)]
        output = own.generate(ids, attention_mask=mask, max_new_tokens=6 + number, options=options)
        rows: list[list[int]] = output[:, 6:].tolist()
        return rows

    with ThreadPoolExecutor(2) as pool:
        texts = [text for texts in pool.map(generate, range(2)) for text in texts]
    own.check(texts)


def test_generate_of_the_model_takes_a_callable(run: Any, prompts: Any) -> None:
    own, streamer = run(), Streamer()
    ids, _ = prompts(4)
    output = own.model.generate(
        ids,
        max_new_tokens=5,
        pad_token_id=0,
        custom_generate=own.sampler.custom_generate(streamer=streamer, top_k=2),
    )
    assert streamer.puts[1:] == output[:, 4:].T.tolist()
    own.check(output[:, 4:].tolist())
    assert {line["rank"] for line in own.kind("token")} <= {0, 1}


@pytest.mark.parametrize("route", ["custom_generate", "logits_processor"])
def test_a_pipeline_generates(run: Any, tokenizer: Any, route: str) -> None:
    own = run()
    pipe = transformers.pipeline("text-generation", model=own.model, tokenizer=tokenizer)
    ours = {
        "custom_generate": own.sampler.custom_generate(trial="pipe"),
        "logits_processor": [own.sampler.processor(trial="pipe")],
    }
    arguments = {
        "max_new_tokens": 5,
        "return_tensors": True,
        "pad_token_id": 0,
        route: ours[route],
    }
    # Its own default is to sample at temperature 0.7.
    with pytest.raises(ConfigError, match=r"temperature=0.7: .*do_sample=False"):
        pipe("Hello there", **arguments)
    (found,) = pipe("Hello there", do_sample=False, **arguments)
    prompt = tokenizer("Hello there")["input_ids"]
    own.check([found["generated_token_ids"][len(prompt) :]])
    assert {line["trial"] for line in own.kind("token")} == {"pipe"}


@pytest.mark.parametrize("cache", ["static", "offloaded"])
def test_caches_make_no_difference(run: Any, prompts: Any, cache: str) -> None:
    if cache == "offloaded" and not torch.cuda.is_available():
        pytest.skip("offloaded caches need an accelerator")
    ids, mask = prompts(3, 6)
    tokens = []
    for arguments in ({}, {"cache_implementation": cache}, {"use_cache": False}):
        own = run()
        output = own.generate(ids, attention_mask=mask, max_new_tokens=6, **arguments)
        own.check(output[:, 6:].tolist())
        tokens.append(output.tolist())
    assert tokens[0] == tokens[1] == tokens[2]


def test_a_compiled_model_generates(run: Any, prompts: Any, tiny_dir: Path) -> None:
    """With a backend that compiles nothing: what matters is that Dynamo runs the forward pass."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tiny_dir).eval()
    ids, mask = prompts(3, 6)
    plain = run(loaded)
    expected = plain.generate(ids, attention_mask=mask, max_new_tokens=4)
    loaded.forward = torch.compile(loaded.forward, backend="eager")
    own = run(loaded)
    output = own.generate(ids, attention_mask=mask, max_new_tokens=4, cache_implementation="static")
    assert output.tolist() == expected.tolist()
    own.check(output[:, 6:].tolist())


@pytest.mark.parametrize("ends", [0, None])
def test_a_stop_that_is_deferred_draws_nothing_more(
    run: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch, ends: int | None
) -> None:
    """As on ``mps``: the loop makes a step too many, streams a step late, and undoes that step."""
    from transformers.generation import utils

    class Event:
        """Stands for the event of a device whose copies are complete at once."""

        def __init__(self, **_arguments: Any) -> None:
            pass

        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            pass

    monkeypatch.setattr(utils.torch, "Event", Event)
    monkeypatch.setattr(utils.DeferredStopCheck, "is_supported", lambda *_, **__: True)
    steps: list[int] = []

    class Counting(transformers.LogitsProcessor):
        """Counts the steps."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            steps.append(input_ids.shape[1])
            return scores

    class Third(transformers.StoppingCriteria):
        """Ends everything after three tokens."""

        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            return torch.full((input_ids.shape[0],), input_ids.shape[1] >= 4 + 3)

    own, streamer = run(), Streamer()
    monkeypatch.setattr(own.model.generation_config, "eos_token_id", ends)
    output = own.generate(
        prompts(4)[0],
        max_new_tokens=9,
        streamer=streamer,
        logits_processor=[Counting()],
        stopping_criteria=[Third()],
    )
    assert len(steps) == 4, "the loop has made no step too many"
    assert output.shape[1] == 4 + 3
    assert streamer.puts[1:] == output[:, 4:].T.tolist()
    assert len(own.source.draws) == 3
    own.check(output[:, 4:].tolist())


@pytest.mark.parametrize("fail_at", [3, 4])
def test_a_streamer_a_step_behind_may_fail(
    run: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    """What the loop has gone on from is emitted; the token on its way is a discard."""
    from transformers.generation import utils

    class Late(utils.StopCheck):  # type: ignore[misc]
        """Hands over the tokens of the step before."""

        held: Any = None

        def __call__(self, unfinished: Any, tokens: Any, length: int) -> bool:
            if self.held is not None:
                self.streamer.put(self.held)
            self.held = tokens
            return bool(unfinished.max() == 0)

    monkeypatch.setattr(utils, "StopCheck", Late)
    own, streamer = run(), Streamer(fail_at)
    with pytest.raises(RuntimeError, match="hung up"):
        own.generate(prompts(4)[0], max_new_tokens=9, streamer=streamer)
    handed_over = [token for (token,) in streamer.puts[1:]]
    own.check([handed_over])
    assert [line["reason"] for line in own.kind("discard")] == ["not_emitted"]


def test_what_transformers_returns_beside_the_tokens_stays_true(run: Any, prompts: Any) -> None:
    own = run()
    ids, _ = prompts(4)
    output = own.generate(
        ids, max_new_tokens=3, return_dict_in_generate=True, output_logits=True, output_scores=True
    )
    with torch.no_grad():
        expected = own.model(output.sequences).logits[:, 3:-1]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), expected, rtol=1e-4, atol=1e-4)
    # The scores are what was forced.
    forced = torch.stack(output.scores, dim=1).argmax(dim=-1)
    assert forced.tolist() == output.sequences[:, 4:].tolist()


def test_embeddings_may_stand_for_a_prompt(run: Any, prompts: Any) -> None:
    own = run()
    embedded = own.model.get_input_embeddings()(prompts(4)[0])
    output = own.sampler.generate(
        inputs_embeds=embedded,
        attention_mask=torch.ones(1, 4, dtype=torch.long),
        max_new_tokens=4,
        pad_token_id=0,
    )
    own.check(output.tolist())
    assert [line["prompt_tokens"] for line in own.kind("sequence")] == [0]


def test_a_model_with_an_encoder_generates(run: Any) -> None:
    config = transformers.T5Config(
        vocab_size=64,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    torch.manual_seed(1)
    own = run(transformers.T5ForConditionalGeneration(config).eval())
    ids = torch.tensor([[5, 6, 7, 1], [8, 9, 1, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    output = own.generate(ids, attention_mask=mask, max_new_tokens=5, eos_token_id=1)
    texts = own.texts()
    assert [row[1 : 1 + len(text)] for row, text in zip(output.tolist(), texts, strict=True)] == (
        texts
    )
    own.check(texts)
    assert own.kind("genesis")[0]["model"] == "T5ForConditionalGeneration"


class LateSource(EntropySource):
    """Notes how many forward passes were complete when it was asked.

    Args:
        passes: An event for each pass, ``None`` where the host computes it itself.
    """

    name = "late"
    blocks = False

    def __init__(self, passes: list[Any]) -> None:
        self._passes = passes
        self.seen: list[int] = []

    def get_random_bytes(self, n: int) -> bytes:
        self.seen.append(sum(event is None or event.query() for event in self._passes))
        return bytes(n)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_draw_follows_the_logits_that_it_decides(tiny_dir: Path, device: str) -> None:
    from qr_sampler_local.transformers import TransformersSampler

    backends = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device in backends and not backends[device]():
        pytest.skip(f"no {device} device")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tiny_dir).to(device).eval()
    passes: list[Any] = []

    def note(_module: Any, _inputs: Any, _output: Any) -> None:
        event = None if device == "cpu" else torch.Event(device=device)
        if event is not None:
            event.record()
        passes.append(event)

    loaded.register_forward_hook(note)
    source = LateSource(passes)
    settings = Settings.load(
        entropy_source_type="late", health=False, fallback_mode="error", sample_count=16
    )
    with TransformersSampler(loaded, settings, sources=[source]) as sampler:
        ids = torch.tensor([[7, 8, 9]], device=device)
        output = sampler.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4)
    assert source.seen == list(range(1, output.shape[1] - 3 + 1))
