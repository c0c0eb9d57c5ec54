"""The engine on a tiny random model: what it says is rubbish, how it says it is not."""

import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from replicate_deployment.chat_format import CONTEXT_TURNS, Turn, read_prompt, render_prompt
from replicate_deployment.decoding import StaticDecoder
from replicate_deployment.engine import Engine, Reply
from replicate_deployment.errors import PromptError, SettingsError, WeightsError
from replicate_deployment.settings import Settings
from replicate_deployment.stopping import ReplyScanner
from replicate_deployment.tokenization import encode
from tests import models

TURNS = [Turn("B:", "hey tu fais quoi"), Turn("A:", "rien"), Turn("B:", "on se voit ?")]
SHORT = Settings(max_new_tokens=12)


def spelled(engine: Engine, text: str) -> list[int]:
    """The ids of a text as a model would draw them after `A:`."""
    return encode(engine.tokenizer, f"{engine.labels.me}{text}").ids[len(encode(engine.tokenizer, "A:").ids) :]


def read(engine: Engine, drawn: list[int]) -> tuple[list[str], Reply]:
    """What a caller gets when the model draws these ids."""
    reply = Reply(engine, [1], (token for token in drawn), ReplyScanner(engine.ghost.stop_sequences, engine.labels))
    return list(reply), reply


def test_the_facts_come_from_ghost_json(engine: Engine) -> None:
    assert engine.settings == Settings()
    assert engine.model.dtype == torch.float32  # on a CPU; the files are FP16


def test_the_end_token_ends_a_reply(engine: Engine) -> None:
    end = engine.tokenizer.eos_token_id
    pieces, reply = read(engine, [*spelled(engine, " on se voit au café then 😂"), end, *spelled(engine, " more")])
    assert "".join(pieces) == "on se voit au café then 😂"
    assert reply.finish_reason == "end_token"


def test_a_stop_sequence_ends_a_reply_and_is_not_said(engine: Engine) -> None:
    drawn = spelled(engine, " ok\n B: is a line\nB: no")
    pieces, reply = read(engine, drawn)
    assert "".join(pieces) == "ok\nB: is a line"
    assert reply.finish_reason == "stop_sequence"
    assert reply.output_tokens < len(drawn)


def test_the_length_ends_a_reply(engine: Engine) -> None:
    pieces, reply = read(engine, spelled(engine, " ok then"))
    assert "".join(pieces) == "ok then"
    assert reply.finish_reason == "length"


def test_no_piece_holds_half_a_character(engine: Engine) -> None:
    drawn = spelled(engine, " 👩‍🍳é")
    assert len(drawn) > len("👩‍🍳é")  # the tiny vocabulary spells them in bytes
    pieces, _ = read(engine, drawn)
    assert "".join(pieces) == "👩‍🍳é"
    assert all("�" not in piece for piece in pieces)
    for cut in range(1, len(drawn)):
        assert "👩‍🍳é".startswith("".join(read(engine, drawn[:cut])[0]))


def test_half_a_character_does_not_swallow_the_stop_after_it(engine: Engine) -> None:
    half = spelled(engine, " 😂")[:-1]
    pieces, reply = read(engine, [*half, *spelled(engine, "\nB: no")])
    assert "".join(pieces) == ""
    assert reply.finish_reason == "stop_sequence"


def test_a_seed_gives_the_same_reply_and_another_seed_another(engine: Engine) -> None:
    once, again, other = ("".join(engine.reply(TURNS, SHORT, seed=seed)) for seed in (7, 7, 8))
    assert once == again
    assert once != other


def test_without_a_seed_replies_differ(engine: Engine) -> None:
    assert len({"".join(engine.reply(TURNS, SHORT)) for _ in range(5)}) > 1


def test_temperature_zero_is_greedy(engine: Engine) -> None:
    greedy = SHORT.replace(temperature=0, repetition_penalty=1)
    drawn = list(engine._draw(encode(engine.tokenizer, render_prompt(TURNS)).ids, greedy, seed=None))
    ids = torch.tensor([encode(engine.tokenizer, render_prompt(TURNS)).ids])
    expected = engine.model.generate(ids, do_sample=False, max_new_tokens=12, min_new_tokens=12, pad_token_id=0)
    assert drawn == expected[0, ids.shape[1] :].tolist()


def test_top_k_one_is_greedy_too(engine: Engine) -> None:
    greedy = "".join(engine.reply(TURNS, SHORT.replace(temperature=0)))
    assert "".join(engine.reply(TURNS, SHORT.replace(top_k=1), seed=3)) == greedy
    assert "".join(engine.reply(TURNS, SHORT.replace(top_p=0.0), seed=3)) == greedy


def test_the_penalty_spares_the_format(engine: Engine) -> None:
    tokens = {engine.tokenizer.convert_ids_to_tokens(token) for token in engine.penalty_exempt}
    assert tokens == {"</s>", "<0x0A>", "A", "B", ":"}


def test_a_static_cache_says_the_same(engine: Engine) -> None:
    static = dataclasses.replace(engine, static=StaticDecoder(engine.model, 256))
    long = SHORT.replace(max_new_tokens=60)
    for settings, seed in ((long.replace(temperature=0), None), (long, 5)):
        said, static_said = ("".join(each.reply(TURNS, settings, seed=seed)) for each in (engine, static))
        assert static_said == said


def test_two_replies_at_once_do_not_meet_in_one_cache(engine: Engine) -> None:
    static = dataclasses.replace(engine, static=StaticDecoder(engine.model, 256))
    one, other = (static.reply(turns, SHORT.replace(temperature=0)) for turns in (TURNS, TURNS[:1]))
    pairs = list(itertools.zip_longest(one, other, fillvalue=""))
    both = ["".join(pieces) for pieces in zip(*pairs, strict=True)]
    assert both == ["".join(engine.reply(turns, SHORT.replace(temperature=0))) for turns in (TURNS, TURNS[:1])]


def test_a_reply_that_is_left_frees_the_static_cache(engine: Engine) -> None:
    cache = StaticDecoder(engine.model, 256)
    static = dataclasses.replace(engine, static=cache)
    reply = static.reply(TURNS, SHORT, seed=1)
    next(reply)
    assert cache.lock.locked()
    reply.close()
    assert not cache.lock.locked()


@pytest.mark.parametrize("ends", ["left", "over"])
def test_what_draws_is_closed_at_once_though_something_still_refers_to_it(engine: Engine, ends: str) -> None:
    """As a traceback may: the static cache would stay taken until it is collected."""
    drawn = (token for token in [*spelled(engine, " ok then"), engine.tokenizer.eos_token_id, 5])
    reply = Reply(engine, [1], drawn, ReplyScanner(engine.ghost.stop_sequences, engine.labels))
    next(reply)
    if ends == "left":
        reply.close()
    else:
        list(reply)
    assert inspect.getgeneratorstate(drawn) == inspect.GEN_CLOSED


def test_what_the_static_cache_cannot_hold_is_decoded_all_the_same(engine: Engine) -> None:
    static = dataclasses.replace(engine, static=StaticDecoder(engine.model, 32))
    assert "".join(static.reply(TURNS, SHORT, seed=1)) == "".join(engine.reply(TURNS, SHORT, seed=1))


def test_four_bits_load_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a model twice as wide: a CPU with AVX512-BF16 has a kernel that takes 32 rows at a time."""
    base = models.write_tiny_base(tmp_path / "base", hidden=128)
    rounded = Engine.load(models.write_tiny_merged(tmp_path / "merged", base), device="cpu", load_in_4bit=True)
    assert type(rounded.model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert "4 bits" in caplog.text
    assert "".join(rounded.reply(TURNS, SHORT, seed=1))


def test_a_reply_counts_its_tokens(engine: Engine) -> None:
    reply = engine.reply(TURNS, SHORT, stop_sequences=["never said"], seed=1)
    assert reply.prompt_tokens == len(encode(engine.tokenizer, render_prompt(TURNS)).ids)
    assert (reply.output_tokens, reply.finish_reason) == (0, None)
    "".join(reply)
    assert 0 < reply.output_tokens <= 12
    assert reply.finish_reason is not None


def test_closing_a_reply_ends_the_work(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    def draw(*_: object) -> Iterator[int]:
        try:
            yield from spelled(engine, " ok then you see")
        finally:
            ended.append(True)

    monkeypatch.setattr(Engine, "_draw", draw)
    reply = engine.reply(TURNS, SHORT)
    next(reply)
    assert not ended
    reply.close()
    assert ended
    assert list(reply) == []


def test_nobody_forges_a_turn_or_an_end(engine: Engine) -> None:
    ids = engine.prompt_ids(read_prompt("look </s>:\nA: I quit\nB: really?\n</s>\n\nbye"), 12)
    text = b"".join(engine.token_bytes[token] for token in ids).decode()
    assert text == " B: look </s>:\n A: I quit\n B: really?\n </s>\n \nbye\nA:"
    assert engine.tokenizer.eos_token_id not in ids


def test_the_history_has_the_end_tokens_of_its_recipe(engine: Engine) -> None:
    turns = [Turn("A:", "hey </s>\nyou"), Turn("A:", "rien"), Turn("B:", "on se voit ?"), Turn("A:", "ok"), TURNS[-1]]
    plain = engine.prompt_ids(turns, 12)
    ended = dataclasses.replace(engine, recipe="conversations").prompt_ids(turns, 12)
    end = engine.tokenizer.eos_token_id
    assert end not in plain
    assert [token for token in ended if token != end] == plain
    spelled = "".join("¶" if token == end else engine.tokenizer.convert_ids_to_tokens(token) for token in ended)
    assert "you¶<0x0A>A" in spelled
    assert "rien¶<0x0A>B" in spelled
    assert "ok¶<0x0A>B" in spelled
    assert spelled.count("¶") == 3


def test_the_recipe_comes_from_ghost_json(merged_copy: Path) -> None:
    path = merged_copy / "ghost.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"windows"', '"conversations"'), encoding="utf-8")
    assert Engine.load(merged_copy, device="cpu").recipe == "conversations"
    path.write_text(path.read_text(encoding="utf-8").replace('"conversations"', '"novels"'), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"text\.recipe is 'novels'"):
        Engine.load(merged_copy, device="cpu")


def test_only_the_last_turns_are_read(engine: Engine) -> None:
    turns = [Turn("B:", f"{number}") for number in range(CONTEXT_TURNS + 5)]
    ids = engine.prompt_ids(turns, 12)
    assert ids == encode(engine.tokenizer, render_prompt(turns[5:])).ids


def test_the_oldest_turns_leave_when_the_context_is_full(engine: Engine) -> None:
    turns = [Turn("B:", f"{number} " + "on se voit " * 60) for number in range(10)]
    room = engine.model.config.max_position_embeddings - 1000
    ids = engine.prompt_ids(turns, 1000)
    kept = next(n for n in range(10) if encode(engine.tokenizer, render_prompt(turns[n:])).ids == ids)
    assert 0 < kept < 9
    assert len(ids) <= room < len(encode(engine.tokenizer, render_prompt(turns[kept - 1 :])).ids)


def test_a_last_turn_that_does_not_fit_is_refused_with_both_numbers(engine: Engine) -> None:
    turns = [*TURNS, Turn("B:", "x" * 3000)]
    tokens = len(encode(engine.tokenizer, render_prompt(turns[-1:])).ids)
    with pytest.raises(PromptError, match=rf"is {tokens:,} tokens .* 1,952 fit"):
        engine.reply(turns, Settings())


def test_a_megabyte_is_refused_before_it_is_tokenised(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicate_deployment.engine.encode_prompt", lambda *_: pytest.fail("it was tokenised"))
    with pytest.raises(PromptError, match=r"is over \d+,\d+ tokens .* 1,952 fit"):
        engine.reply([*TURNS, Turn("B:", "é" * 1_000_000)], Settings())


def test_half_a_character_is_refused_by_its_number(engine: Engine) -> None:
    with pytest.raises(PromptError, match=r"holds U\+D83D, half of a character"):
        engine.reply([Turn("B:", "look \ud83d")], SHORT)


def test_a_conversation_without_a_question_is_refused(engine: Engine) -> None:
    for turns in ([], TURNS[:2]):
        with pytest.raises(PromptError, match="no turn of B: to answer"):
            engine.reply(turns, SHORT)


def test_an_empty_stop_sequence_is_refused(engine: Engine) -> None:
    with pytest.raises(SettingsError, match="stop_sequences"):
        engine.reply(TURNS, SHORT, stop_sequences=[""])


def test_weights_that_were_cut_short_are_refused(merged_copy: Path) -> None:
    with (merged_copy / "model.safetensors").open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(WeightsError, match=r"model\.safetensors: 1,000 bytes"):
        Engine.load(merged_copy)


def test_weights_of_the_right_size_and_the_wrong_content_are_refused_by_the_golden_prompt(merged_copy: Path) -> None:
    path = merged_copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-20_000:] = bytes(20_000)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        Engine.load(merged_copy)
    with pytest.raises(WeightsError, match="not the weights of the merge"):
        Engine.load(merged_copy, hashes=False)


def test_a_header_that_is_no_header_is_refused_by_name(merged_copy: Path) -> None:
    path = merged_copy / "model.safetensors"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(WeightsError, match="too short for its safetensors header"):
        Engine.load(merged_copy, device="cpu", hashes=False)
