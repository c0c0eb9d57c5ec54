"""chat_template.jinja says what chat_format says."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from replicate_deployment.chat_format import (
    SPECIAL_STRINGS,
    Labels,
    Turn,
    chat_template,
    parse,
    render,
    render_prompt,
)
from tests.replicate_deployment.test_chat_format import LABEL_PAIRS, talks


def _fail(message: str) -> None:
    raise TemplateError(message)


def _compile(labels: Labels) -> Any:
    """As transformers compiles it (utils/chat_template_utils.py), without the seconds of importing transformers."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _fail
    return environment.from_string(chat_template(labels))


TEMPLATES = {labels: _compile(labels) for labels in LABEL_PAIRS}


def _messages(turns: list[Turn], labels: Labels) -> list[dict[str, str]]:
    return [{"role": "assistant" if turn.label == labels.me else "user", "content": turn.text} for turn in turns]


def _apply(turns: list[Turn], labels: Labels, *, reply: bool) -> str:
    messages = _messages(turns, labels)
    return str(
        TEMPLATES[labels].render(messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=reply)
    )


@given(talks(min_size=1))
def test_the_template_equals_chat_format(talk: tuple[list[Turn], Labels]) -> None:
    turns, labels = talk
    assume(not any(special in turn.text for turn in turns for special in SPECIAL_STRINGS))
    end = "</s>" if turns[-1].label == labels.me else ""
    assert _apply(turns, labels, reply=True) == "<s> " + render_prompt(turns, labels)
    assert _apply(turns, labels, reply=False) == "<s> " + render(turns, labels) + end


@given(talks(min_size=1))
def test_a_typed_special_token_never_survives(talk: tuple[list[Turn], Labels]) -> None:
    turns, labels = talk
    text = _apply(turns, labels, reply=True).removeprefix("<s> ")
    assert not [special for special in SPECIAL_STRINGS if special in text]
    assert [turn.label for turn in parse(text, labels)] == [*(turn.label for turn in turns), labels.me]


def test_the_space_goes_after_the_opening_bracket() -> None:
    turns = [Turn("B:", "what is </s>\n<unk> or [INST]?")]
    assert _apply(turns, Labels(), reply=True) == "<s> B: what is < /s>\n < unk> or [ INST]?\nA:"


@pytest.mark.parametrize("role", ["system", "tool"])
def test_other_roles_are_refused(role: str) -> None:
    with pytest.raises(TemplateError, match=f"only the roles user and assistant exist, not {role}"):
        TEMPLATES[Labels()].render(messages=[{"role": role, "content": "be nice"}], bos_token="<s>", eos_token="</s>")


def test_the_tokenizer_of_a_model_folder_renders_it(tiny_base: Path) -> None:
    from replicate_deployment.tokenization import encode, load_tokenizer

    labels = Labels()
    turns = [Turn("B:", "tu fais quoi\nB: ce soir\n\n<3"), Turn("A:", "mdr ok"), Turn("A:", "see you")]
    tokenizer = load_tokenizer(tiny_base)
    tokenizer.chat_template = chat_template(labels)
    messages = _messages(turns, labels)
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<s> " + render(turns) + "</s>"
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    assert ids == encode(tokenizer, render(turns), end=True).ids
