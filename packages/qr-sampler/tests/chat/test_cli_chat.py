# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler chat`` as a script uses it: lines of a pipe in, replies and a summary out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qr_sampler.errors import ConfigError, QRSamplerError
from qr_sampler_cli.chat.input_lines import LONGEST, is_interactive, lines_of_user
from qr_sampler_cli.chat.screen import Screen
from qr_sampler_cli.main import app

Chat = Callable[..., Result]

RECURSION = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"
"""A template that never ends."""

SHOWN = "Light \u2600 is \\x1b[2J\\x9b5m \ufffd bent."
"""The sentence of the toy engine, what could steer a terminal written as escapes."""

TOKENS = 30
"""Bytes of the sentence, and the token that ends a reply."""


def lines_of(path: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def text_of(tokens: list[int]) -> str:
    return bytes(token for token in tokens if token < 256).decode()


def test_replies_and_a_summary_that_agrees_with_the_records(chat: Chat, tmp_path: Path) -> None:
    result = chat("Hello", "", "And?", arguments=("--records=r.jsonl", "--system=Be brief."))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        SHOWN,
        SHOWN,
        "records: r.jsonl",
        result.stdout.splitlines()[-1],
    ]
    assert result.stdout.splitlines()[-1].startswith(f"{2 * TOKENS} tokens | 100.0 % from system")
    tokens = lines_of(tmp_path / "r.jsonl", "token")
    assert len(tokens) == 2 * TOKENS
    sequences = lines_of(tmp_path / "r.jsonl", "sequence")
    keys = [line["request_key"] for line in sequences]
    assert [key[-2:] for key in keys] == ["-0", "-1"]
    assert keys[0].startswith("chat-")
    assert "engine: Transformers, because a test says so" in result.stderr


def test_what_was_said_is_said_again_until_it_is_forgotten(chat: Chat, engine_class: Any) -> None:
    assert chat("One", "Two", "/reset", "Three", arguments=("--system=S",)).exit_code == 0
    (engine,) = engine_class.made
    # The first conversation is only written, to see whether it can be.
    first, second, third = map(text_of, engine.prompts)
    assert first == "<system>S<user>One"
    spoken = engine.sentence.decode("utf-8", "replace")
    assert second == f"<system>S<user>One<assistant>{spoken}<user>Two"
    assert third == "<system>S<user>Three"


def test_options_are_those_of_generate_and_can_be_changed(chat: Chat, engine_class: Any) -> None:
    result = chat(
        "One",
        "/options qr_top_p=0.5 qr_trial=t2",
        "Two",
        arguments=("--top-k=5", "--set=qr_trial=t1", "--max-tokens=3", "--source=mock_uniform"),
    )
    assert result.exit_code == 0, result.stderr
    (engine,) = engine_class.made
    first, second = (dict(options) for options in engine.options)
    assert first.pop("qr_request_key")[-2:] == "-0"
    assert second.pop("qr_request_key")[-2:] == "-1"
    assert first == {"qr_top_k": "5", "qr_trial": "t1"}
    assert second == {"qr_top_k": "5", "qr_trial": "t2", "qr_top_p": "0.5"}
    for line in ("engine      toy 1.0 on cpu", "source      mock_uniform", "qr_top_p=0.5"):
        assert line in result.stderr
    assert result.stdout.splitlines()[:2] == ["Lig", "Lig"]
    assert result.stdout.splitlines()[2].startswith("6 tokens | 100.0 % from mock_uniform")


def test_request_keys_of_the_user_are_numbered(chat: Chat, engine_class: Any) -> None:
    assert chat("One", "Two", arguments=("--set=qr_request_key=k",)).exit_code == 0
    (engine,) = engine_class.made
    assert [options["qr_request_key"] for options in engine.options] == ["k-0", "k-1"]


def test_a_slash_begins_commands_and_two_a_message(chat: Chat, engine_class: Any) -> None:
    result = chat("/help", "//etc", "/quit", "never said")
    assert result.exit_code == 0, result.stderr
    (engine,) = engine_class.made
    assert [text_of(prompt) for prompt in engine.prompts] == ["<user>/etc"]
    assert "/reset" in result.stderr


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/restart", "/restart: there is no such command; there are /help, "),
        ("/", "there is no such command"),
        ("/shade v", "/shade v: choose u or none"),
        ("/options qr_top_p=2", "qr_top_p"),
        ("/options top_p=0.5", "/options top_p=0.5: keys begin with 'qr_'"),
    ],
)
def test_mistakes_of_a_script_end_it(chat: Chat, line: str, reason: str) -> None:
    result = chat(line, "never said")
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stdout == ""


def test_nothing_said_is_no_failure(chat: Chat) -> None:
    result = chat(arguments=("--require-primary",))
    assert result.exit_code == 0
    assert result.stdout.startswith("0 tokens | n/a from system")


def test_a_token_without_a_record_is_a_mismatch(
    chat: Chat, engine_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was shown is compared, not what the engine says to have made."""
    hand_over = engine_class._hand_over

    def twice(self: Any, sequence: Any, token: Any, on_token: Any) -> None:
        hand_over(self, sequence, token, on_token)
        if token.position == 20:
            on_token(token)

    monkeypatch.setattr(engine_class, "_hand_over", twice)
    result = chat("Hello")
    assert result.exit_code == 1
    assert f"token {TOKENS}: 0 records instead of 1" in result.stderr
    assert "the records do not account for the emitted tokens" in result.stderr


def test_tokens_of_the_fallback_are_a_failure_if_the_source_is_required(
    chat: Chat, engine_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QR_DEVICE_FILE_PATH", "/dev/none")
    arguments = ("--source=device_file", "--fallback=system")
    assert chat("Hello", arguments=arguments).exit_code == 0
    result = chat("Hello", arguments=(*arguments, "--require-primary"))
    assert result.exit_code == 3
    assert f"{TOKENS} of {TOKENS} tokens did not come from device_file" in result.stderr


def test_an_interrupt_ends_a_script_and_drops_what_was_drawn_beyond(
    chat: Chat, engine_class: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    step = engine_class._step

    def interrupted(self: Any, sequence: Any) -> None:
        step(self, sequence)
        if len(sequence.tokens) == 4:
            # The third token is about to be handed over, and the fourth was drawn ahead.
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(engine_class, "_step", interrupted)
    result = chat("Hello", "never said", arguments=("--records=r.jsonl",))
    assert result.exit_code == 130, result.stderr
    assert result.stdout.splitlines()[0] == "Lig"
    assert result.stdout.splitlines()[-1].startswith("3 tokens | 100.0 % from system")
    assert len(lines_of(tmp_path / "r.jsonl", "token")) == 3
    discards = lines_of(tmp_path / "r.jsonl", "discard")
    assert [line["position"] for line in discards if line["reason"] != "startup_test"] == [3]
    (end,) = lines_of(tmp_path / "r.jsonl", "end")
    assert end["tokens"] == 3


def test_a_reply_that_fails_leaves_its_records(
    chat: Chat, engine_class: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    step = engine_class._step

    def failing(self: Any, sequence: Any) -> None:
        if len(sequence.tokens) == 3:
            raise RuntimeError("out of memory")
        step(self, sequence)

    monkeypatch.setattr(engine_class, "_step", failing)
    result = chat("Hello", arguments=("--records=r.jsonl",))
    assert result.exit_code == 2
    assert "Transformers failed while generating: RuntimeError: out of memory" in result.stderr
    assert lines_of(tmp_path / "r.jsonl", "token") != []


def test_a_file_of_records_is_not_replaced(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").touch()
    result = chat("Hello", arguments=("--records=r.jsonl",))
    assert result.exit_code == 2
    assert "replace it with --force" in result.stderr


def test_a_model_without_a_template_gets_a_remedy(chat: Chat, engine_class: Any) -> None:
    engine_class.has_template = False
    result = chat("Hello")
    assert result.exit_code == 2
    assert "the model has no chat template; give a template with --template FILE" in result.stderr
    assert "--template plain" in result.stderr


def test_plain_text_is_a_play_and_ends_with_its_next_line(chat: Chat, engine_class: Any) -> None:
    engine_class.has_template = False
    engine_class.sentence = b" It bends.\nUser: Why? Assistant:"
    result = chat("How?", "So?", arguments=("--template=plain", "--system=A play."))
    assert result.exit_code == 0, result.stderr
    first, second = map(text_of, engine_class.made[0].prompts)
    assert first == "A play.\n\nUser: How?\nAssistant:"
    assert second == "A play.\n\nUser: How?\nAssistant: It bends.\nUser: So?\nAssistant:"
    # Each token that was shown has its record, those of the next line included.
    assert result.stdout.splitlines()[:4] == [" It bends.", "User:", " It bends.", "User:"]
    assert result.stdout.splitlines()[-1].startswith("32 tokens | 100.0 %")


def test_a_template_of_a_file_writes_the_conversation(
    chat: Chat, engine_class: Any, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2", reason="comes with the engines")
    engine_class.has_template = False
    (tmp_path / "t.jinja").write_text(
        "{{ bos_token }}{% for message in messages %}\n"
        "[{{ message['role'] }}]{{ message.content }}\n{% endfor %}\n"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
        "utf-8",
    )
    result = chat("How?", arguments=("--template=t.jinja",))
    assert result.exit_code == 0, result.stderr
    assert text_of(engine_class.made[0].prompts[0]) == "[user]How?\n[assistant]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot read it (No such file or directory); name a Jinja template, or 'plain'"),
        (b"\xff", "not UTF-8"),
        (b"x" * (1 << 20) + b"x", "more than 1048576 bytes are no template"),
        (b"{% if %}", "no Jinja template"),
        (b"{{ raise_exception('only one turn') }}", "refuses the conversation: only one turn"),
        (b"{{ messages[7].content }}", "t.jinja"),
        (b"{{ ''.__class__.__mro__[1].__subclasses__() }}", "t.jinja"),
    ],
)
def test_files_that_are_no_templates(
    chat: Chat, tmp_path: Path, text: bytes | None, reason: str
) -> None:
    pytest.importorskip("jinja2", reason="comes with the engines")
    if text is not None:
        (tmp_path / "t.jinja").write_bytes(text)
    result = chat("How?", arguments=("--template=t.jinja",))
    assert result.exit_code == 2
    assert "--template t.jinja: " in result.stderr
    assert reason in result.stderr


def test_a_prompt_that_is_too_long_ends_a_script(chat: Chat, engine_class: Any) -> None:
    engine_class.longest_prompt = 10
    result = chat("much too long for it")
    assert result.exit_code == 2
    assert "is too long" in result.stderr


def test_input_that_is_no_text(engine_class: Any) -> None:
    result = CliRunner().invoke(app, ["chat", "--model=m"], input=b"\xff\xfe\n")
    assert result.exit_code == 2
    assert "the input is not utf-8" in result.stderr


def test_a_line_without_an_end_is_not_read_to_it(chat: Chat) -> None:
    result = chat("x" * (LONGEST + 1))
    assert result.exit_code == 2
    assert f"more than {LONGEST} characters" in result.stderr


def test_without_standard_input_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert not is_interactive()
    assert list(lines_of_user()) == []


def test_without_standard_output_there_is_no_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(ConfigError, match="standard output is closed"):
        Screen()


def test_an_interrupt_before_the_first_line_ends_a_script(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waiting(_: object) -> Iterator[str]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("qr_sampler_cli.chat.run.lines_of_user", waiting)
    assert chat("never said").exit_code == 130


@pytest.mark.parametrize("text", ["{{" + "(" * 10_000 + "1" + ")" * 10_000 + "}}", RECURSION])
def test_templates_without_a_bottom_are_refused(chat: Chat, tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.jinja").write_text(text, "utf-8")
    result = chat("Hello", arguments=("--template=deep.jinja",))
    assert result.exit_code == 2
    assert "error: --template deep.jinja: " in result.stderr


def test_a_broken_pipe_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output:
        monkeypatch.setattr("sys.stdout", output)
        with (
            contextlib.closing(Screen()) as screen,
            pytest.raises(QRSamplerError, match="cannot write the reply: Broken pipe"),
        ):
            screen.show("Light")


def test_nobody_who_reads_ends_it(
    chat: Chat, engine_class: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    console = types.SimpleNamespace(print=broken, color_system=None, no_color=True)
    monkeypatch.setattr("qr_sampler_cli.chat.screen.console_on", lambda _: console)
    result = chat("Hello", arguments=("--records=r.jsonl",))
    assert result.exit_code == 2
    assert "cannot write the reply: Broken pipe" in result.stderr
    # It was handed over, and so is emitted, although it was not seen.
    assert len(lines_of(tmp_path / "r.jsonl", "token")) == 1
