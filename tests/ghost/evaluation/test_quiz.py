"""The blind quiz: what the page gives away (nothing), what it does in a browser, and how answers are scored."""

import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.pictures import browser
from ghost.errors import DataError, UsageError
from ghost.evaluation import quiz
from ghost.evaluation.data import Exchange
from ghost.evaluation.quiz import KEY, QUIZ, Pair, Score, Unfinished
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn

NASTY = "<script>document.title = 'hacked'</script> <img src=x onerror=alert(1)>"


def exchanges(word: str, count: int = 40) -> list[Exchange]:
    return [Exchange((Turn("B:", f"question {n} {NASTY}"),), f"{word} {n} {NASTY}") for n in range(count)]


@pytest.fixture
def asked() -> list[Pair]:
    return quiz.pairs(exchanges("alpha"), exchanges("beta"), seed=1)


def conversations(count: int, turns: int) -> list[Exchange]:
    """Of each conversation an exchange for every reply, with all the turns before it."""
    found = []
    for talk in range(count):
        said = [Turn("AB"[turn % 2 == 0] + ":", f"talk {talk} turn {turn}") for turn in range(turns)]
        found += [Exchange(tuple(said[:place]), said[place].text, conversation=talk) for place in range(1, turns, 2)]
    return found


@pytest.mark.parametrize(("count", "turns", "wanted"), [(20, 12, 20), (3, 40, 20), (1, 60, 10), (30, 2, 20)])
@pytest.mark.parametrize("known", [True, False])
def test_no_question_shows_the_reply_to_another(count: int, turns: int, wanted: int, known: bool) -> None:
    held_out = conversations(count, turns)
    given = held_out if known else [replace(one, conversation=-1) for one in held_out]
    chosen, passed_over = quiz.independent_questions(given, wanted, seed=3)
    shown = [{*(turn.text for turn in one.context[-quiz.TURNS :]), one.reply} for one in chosen]
    assert sum(map(len, shown)) == len(set().union(*shown))
    assert len(chosen) >= quiz.FEWEST
    assert len(chosen) == wanted or len(chosen) + passed_over == len(held_out)
    if known:
        assert len({one.conversation for one in chosen}) == min(count, len(chosen))
    assert (chosen, passed_over) == quiz.independent_questions(given, wanted, seed=3)
    assert chosen != quiz.independent_questions(given, wanted, seed=4)[0]


def test_too_few_questions_apart_make_no_quiz() -> None:
    with pytest.raises(DataError, match=r"^[1-5] held-out replies can be asked about .* a quiz takes 6"):
        quiz.independent_questions(conversations(1, 20), 20, seed=0)


def test_pairs_answer_the_same_and_are_drawn_by_lot(asked: list[Pair]) -> None:
    assert len(asked) == 20
    for pair in asked:
        number = pair.context[0].text.split()[1]
        assert (pair.real, pair.generated) == (f"alpha {number} {NASTY}", f"beta {number} {NASTY}")
    assert 4 < sum(pair.real_first for pair in asked) < 16
    assert asked == quiz.pairs(exchanges("alpha"), exchanges("beta"), seed=1)
    assert asked != quiz.pairs(exchanges("alpha"), exchanges("beta"), seed=2)


def test_sides_follow_from_what_the_page_does_not_show(asked: list[Pair]) -> None:
    """Else whoever has this program could draw them again."""
    hidden = Exchange((Turn("B:", "said between us"),), "not in the quiz")
    again = quiz.pairs([*exchanges("alpha"), hidden], exchanges("beta"), seed=1)
    assert [(pair.context, pair.real) for pair in again] == [(pair.context, pair.real) for pair in asked]
    assert [pair.real_first for pair in again] != [pair.real_first for pair in asked]


def test_what_nobody_could_choose_between_is_not_asked() -> None:
    own, said = exchanges("alpha", 10), exchanges("beta", 10)
    said[0] = Exchange(said[0].context, f" {own[0].reply} ")  # the same but for blanks
    said[1] = Exchange(said[1].context, " ")
    said[2] = Exchange(said[2].context, "x" * 500)
    said[3] = Exchange((Turn("B:", "asked by nobody"),), "hm")
    assert len(quiz.pairs(own, said, seed=0)) == 6
    with pytest.raises(DataError, match=r"5 held-out replies differ .* a quiz takes 6"):
        quiz.pairs(own[:9], said, seed=0)


def test_the_page_is_the_same_whichever_side_is_real(asked: list[Pair], tmp_path: Path) -> None:
    """Nothing but the words tells: with both replies equal, a page and its mirror are one."""
    same = [Pair(pair.context, "x", "x", pair.real_first) for pair in asked]
    mirrored = [Pair(pair.context, "x", "x", not pair.real_first) for pair in asked]
    pages = []
    for name, some in (("one", same), ("two", mirrored)):
        quiz.write_pairs(tmp_path / name, some, DEFAULT_LABELS)
        pages.append((tmp_path / name / QUIZ).read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    keys = [json.loads((tmp_path / name / KEY).read_text())["right"] for name in ("one", "two")]
    assert keys[0].translate(str.maketrans("12", "21")) == keys[1]


def test_messages_are_text_and_the_page_asks_nobody(asked: list[Pair], tmp_path: Path) -> None:
    quiz.write_pairs(tmp_path / "quiz", asked, DEFAULT_LABELS, name="<b>Noa</b>")
    html = (tmp_path / "quiz" / QUIZ).read_text(encoding="utf-8")
    assert html.count("<script>") == 1
    assert "&lt;b&gt;Noa&lt;/b&gt;" in html
    assert "This page shows private messages" in html
    assert not re.search(r"(?:src|href)=[\"']", html)
    assert oct((tmp_path / "quiz" / KEY).stat().st_mode)[-3:] == "600"


def test_a_folder_with_other_files_is_not_replaced(asked: list[Pair], tmp_path: Path) -> None:
    (tmp_path / "diary.txt").touch()
    with pytest.raises(UsageError, match="diary"):
        quiz.write_pairs(tmp_path, asked, DEFAULT_LABELS)


@pytest.mark.parametrize("left", [(QUIZ, KEY), (KEY,)])
def test_a_quiz_that_friends_may_be_answering_is_not_replaced(
    left: tuple[str, ...], asked: list[Pair], tmp_path: Path
) -> None:
    folder = tmp_path / "quiz"
    quiz.write_pairs(folder, asked, DEFAULT_LABELS)
    for name in {QUIZ, KEY}.difference(left):
        (folder / name).unlink()
    before = (folder / KEY).read_bytes()
    with pytest.raises(UsageError, match=r"key\.json: of an earlier quiz, .* \(--blind OTHER_FOLDER\), or delete "):
        quiz.write_pairs(folder, asked[:10], DEFAULT_LABELS)
    assert (folder / KEY).read_bytes() == before
    assert [path.name for path in folder.iterdir() if path.name not in left] == []


def test_scores(asked: list[Pair], tmp_path: Path) -> None:
    number = quiz.write_pairs(tmp_path / "quiz", asked, DEFAULT_LABELS)
    key = tmp_path / "quiz" / KEY
    right = json.loads(key.read_text())["right"]
    wrong = right.translate(str.maketrans("12", "21"))
    [perfect], together = quiz.score_pairs([f" {number}-{right}\n"], key)
    assert isinstance(perfect, Score)
    assert (perfect.right.value, perfect.right.n, together) == (1.0, 20, None)
    assert perfect.p == pytest.approx(0.5**19)
    assert str(perfect).startswith("20 of 20 right (100%, ")
    assert str(perfect).endswith("can tell")
    [fooled], _ = quiz.score_pairs([f"{number}-{wrong}"], tmp_path / "quiz")  # the folder has its key
    assert isinstance(fooled, Score)
    assert fooled.right.value == 0
    assert str(fooled).endswith("take the ghost for you")
    (half, other), both = quiz.score_pairs([right[:10] + wrong[10:], wrong[:10] + right[10:]], key)
    assert isinstance(half, Score)
    assert half.p == pytest.approx(1)
    assert str(half).endswith("not more than guessing explains")
    assert both is not None
    assert (both.right.n, both.right.value) == (40, 0.5)
    assert json.dumps(dataclasses.asdict(other))


def test_a_code_with_open_questions_is_said_and_not_counted(asked: list[Pair], tmp_path: Path) -> None:
    quiz.write_pairs(tmp_path / "quiz", asked, DEFAULT_LABELS)
    right = json.loads((tmp_path / "quiz" / KEY).read_text())["right"]
    some = "0" * 5 + right[5:]
    (whole, partial, nothing), together = quiz.score_pairs([right, some, "0" * 20], tmp_path / "quiz")
    assert isinstance(whole, Score)
    assert (partial, nothing, together) == (Unfinished(5, 20), Unfinished(20, 20), None)
    assert str(partial).startswith("5 of 20 not answered: not counted")
    _, together = quiz.score_pairs([right, some, right], tmp_path / "quiz")
    assert together is not None
    assert together.right.n == 40


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("12", "not a code of this quiz"),
        ("hello", "not a code of this quiz"),
        ("0123abcd-" + "1" * 20, "the answers to quiz 0123abcd"),
    ],
)
def test_a_code_of_another_quiz_is_bad_usage(code: str, message: str, asked: list[Pair], tmp_path: Path) -> None:
    quiz.write_pairs(tmp_path / "quiz", asked, DEFAULT_LABELS)
    with pytest.raises(UsageError, match=message):
        quiz.score_pairs([code], tmp_path / "quiz" / KEY)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"key\.json: no key of a quiz; `ghost evaluate --blind` writes one"):
        quiz.score_pairs(["12"], tmp_path / KEY)
    with pytest.raises(DataError, match=r"key\.json: no key of a quiz"):
        quiz.score_pairs(["12"], tmp_path)


@pytest.mark.parametrize(("count", "told"), [(quiz.FEWEST, True), (quiz.FEWEST - 1, False)])
def test_the_smallest_quiz_is_one_whose_answers_can_tell(count: int, told: bool) -> None:
    assert [quiz._score(answers, "1" * count).p < 0.05 for answers in ("1" * count, "2" * count)] == [told] * 2


@pytest.mark.skipif(browser.found() is None, reason="no Chromium: set BROWSER or put one on PATH")
def test_in_a_browser_answers_become_the_code(asked: list[Pair], tmp_path: Path) -> None:
    number = quiz.write_pairs(tmp_path / "quiz", asked, DEFAULT_LABELS)
    key = tmp_path / "quiz" / KEY
    right = json.loads(key.read_text())["right"]
    program = browser.found()
    assert program is not None
    with browser.browser(program) as page:
        for width, scheme in ((360, "dark"), (1200, "light")):
            page.show(tmp_path / "quiz" / QUIZ, width=width, scheme=scheme)
            assert page.ask("document.title") == quiz.HEADING
            assert page.ask("document.querySelector('output').textContent") == "…"
            assert page.ask("document.documentElement.scrollWidth") <= width
            choose = "document.querySelectorAll('article')[{0}].querySelectorAll('input')[{1}].click()"
            page.ask(choose.format(0, int(right[0]) - 1))
            assert page.ask("document.querySelector('output').textContent") == "…", "an open question, no code"
            assert page.ask("document.querySelector('#left').textContent") == "19 not answered yet"
            for place in range(1, 20):
                page.ask(choose.format(place, int(right[place]) - 1))
            code = page.ask("document.querySelector('output').textContent")
            assert code == f"{number}-{right}"
            [score], _ = quiz.score_pairs([code], key)
            assert isinstance(score, Score)
            assert score.right.value == 1
            assert page.ask("document.querySelector('#left').textContent").startswith("All answered")
        assert page.complaints == []
        smuggled = tmp_path / "smuggled.html"  # as if a message had got past the escaping: only our own script may run
        html = (tmp_path / "quiz" / QUIZ).read_text(encoding="utf-8")
        smuggled.write_text(html.replace("<form", "<script>document.title = 'hacked'</script><form"), encoding="utf-8")
        page.show(smuggled, width=800, scheme="light")
        assert page.ask("document.title") == quiz.HEADING
        assert page.ask("document.querySelector('output').textContent") == "…"
        assert [url for url in page.requested if not url.startswith("file:")] == []
