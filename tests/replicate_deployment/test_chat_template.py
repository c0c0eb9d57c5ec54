"""chat_template.jinja says what chat_format says."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from replicate_deployment.chat_format import (
    END_TOKEN,
    RECIPES,
    SPECIAL_STRINGS,
    Labels,
    Recipe,
    Turn,
    chat_template,
    parse,
    render,
    render_line,
    render_prompt,
    spans,
)
from tests.replicate_deployment.test_chat_format import LABEL_PAIRS, talks


def _fail(message: str) -> None:
    raise TemplateError(message)


def _compile(labels: Labels, recipe: Recipe) -> Any:
    """As transformers compiles it (utils/chat_template_utils.py), without the seconds of importing transformers."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _fail
    return environment.from_string(chat_template(labels, recipe=recipe))


TEMPLATES = {(labels, recipe): _compile(labels, recipe) for labels in LABEL_PAIRS for recipe in RECIPES}
each_recipe = pytest.mark.parametrize("recipe", RECIPES)


def _messages(turns: list[Turn], labels: Labels) -> list[dict[str, str]]:
    return [{"role": "assistant" if turn.label == labels.me else "user", "content": turn.text} for turn in turns]


def _apply(turns: list[Turn], labels: Labels, recipe: Recipe, *, reply: bool) -> str:
    messages = _messages(turns, labels)
    return str(
        TEMPLATES[labels, recipe].render(
            messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=reply
        )
    )


@each_recipe
@given(talk=talks(min_size=1))
def test_the_template_equals_chat_format(recipe: Recipe, talk: tuple[list[Turn], Labels]) -> None:
    turns, labels = talk
    assume(not any(special in turn.text for turn in turns for special in SPECIAL_STRINGS))
    turns = [Turn(label, text.lstrip(" ") if label == labels.me else text) for label, text in turns]
    assert _apply(turns, labels, recipe, reply=False) == "<s> " + render_line(turns, labels, recipe=recipe)
    prompt = _apply(turns, labels, recipe, reply=True)
    if recipe == "windows":
        assert prompt == "<s> " + render_prompt(turns, labels)
    else:
        assert prompt == "<s> " + render_line(turns, labels, recipe=recipe) + f"\n{labels.me}"


@each_recipe
@given(talk=talks(min_size=1))
def test_a_typed_special_token_never_survives(recipe: Recipe, talk: tuple[list[Turn], Labels]) -> None:
    turns, labels = talk
    text = _apply(turns, labels, recipe, reply=True).removeprefix("<s> ")
    assert text.count(END_TOKEN) == sum(turn.label == labels.me for turn in turns if recipe == "conversations")
    text = text.replace(END_TOKEN, "")
    assert not [special for special in SPECIAL_STRINGS if special in text]
    assert [turn.label for turn in parse(text, labels)] == [*(turn.label for turn in turns), labels.me]


@each_recipe
def test_a_reply_that_is_sent_back_as_it_was_written_gives_the_same_text(recipe: Recipe) -> None:
    """vLLM and llama.cpp answer with the space after the tag."""
    sent = [[Turn("B:", " hey"), Turn("A:", f"{space}yo\n there"), Turn("B:", "ok")] for space in ("", " ")]
    plain, back = (_apply(turns, Labels(), recipe, reply=True) for turns in sent)
    assert plain == back
    assert plain.startswith("<s> B:  hey\nA: yo\n there")


def test_the_space_goes_after_the_opening_bracket() -> None:
    turns = [Turn("B:", "what is </s>\n<unk> or [INST]?")]
    assert _apply(turns, Labels(), "windows", reply=True) == "<s> B: what is < /s>\n < unk> or [ INST]?\nA:"


@pytest.mark.parametrize("role", ["system", "tool"])
def test_other_roles_are_refused(role: str) -> None:
    with pytest.raises(TemplateError, match=f"only the roles user and assistant exist, not {role}"):
        TEMPLATES[Labels(), "windows"].render(messages=[{"role": role, "content": "be nice"}])


@each_recipe
def test_the_tokenizer_of_a_model_folder_renders_it(tiny_base: Path, recipe: Recipe) -> None:
    from replicate_deployment.tokenization import encode, encode_prompt, load_tokenizer

    labels = Labels()
    turns = [
        Turn("B:", "tu fais quoi\nB: ce soir\n\n<3"),
        Turn("A:", "mdr ok"),
        Turn("B:", "on"),
        Turn("A:", "see you"),
    ]
    tokenizer = load_tokenizer(tiny_base)
    tokenizer.chat_template = chat_template(labels, recipe=recipe)
    messages = _messages(turns, labels)
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<s> " + render_line(turns, recipe=recipe)
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    ends = [span.end for span in spans(turns, recipe=recipe)]
    assert ids == encode(tokenizer, render(turns), ends=ends).ids
    assert ids.count(tokenizer.eos_token_id) == {"windows": 1, "conversations": 2}[recipe]
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert prompt == encode_prompt(tokenizer, turns[:-1], labels, recipe) == ids[: len(prompt)]
