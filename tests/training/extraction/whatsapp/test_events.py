import pytest

from training.extraction.whatsapp.events import is_event, is_event_line, is_notice


@pytest.mark.parametrize(
    "line",
    [
        'You changed the subject from "fun" to "fun: the sequel"',
        'Bob changed the subject to "a: b"',
        'Zoé created group "Trip: 2024"',
        "+44 7700 900123 added you to a group in the community: Fans",
        "You added Zoé: la vraie",
        "Vous avez changé le sujet “a: b” en “c”",
        'Léa a créé le groupe "Vacances: été"',
        'Du hast den Betreff von "a: b" zu "c" geändert',
        "U hebt het onderwerp gewijzigd van 'a: b' naar 'c'",
        'Creaste el grupo "Viaje: Roma"',
        "Hai cambiato l'oggetto da “a: b” a “c”",
        'Você alterou o nome de "a: b" para "c"',
        'Ali, "a: b" olan konuyu "c" olarak değiştirdi',
        'Вы изменили тему с "а: б" на "в"',
        'أنت غيّرت اسم المجموعة من "a: b" إلى "c"',
        '您把主题从 "a: b" 改为 "c"',
        "ボブがグループ「旅: 2024」を作成しました",
        'आपने विषय को "a: b" से "c" में बदला है',
        "Eltávolítottad őt: Bob",
    ],
)
def test_an_event_may_hold_a_colon(line: str) -> None:
    assert is_event_line(line)
    assert is_event(line.partition(": ")[0])


@pytest.mark.parametrize(
    "line",
    ["Bob left", "You left", "👩‍💻 Anna joined using this group's invite link", "José-María est parti·e",
     "+49 151 0000000 hat die Gruppe verlassen", "You're now an admin",
     "Ana salió del grupo.", "Боб покинул(-а) группу"],
)  # fmt: skip
def test_an_event_is_a_whole_line(line: str) -> None:
    assert is_event_line(line)
    assert not is_event_line(f"{line}, and then what")
    assert not is_event_line(f"Alice: {line}")


@pytest.mark.parametrize(
    "line",
    [
        "Bob: You changed the subject",
        'Bob: you changed the subject from "a" to "b"',
        "Bob: I was removed",
        "José: Ana salió",
        'José "Pepe" López: hola',
        "Zoé: la vraie left",
        "Номер Такси: выезжаю",
        'Bob 5": ok',
    ],
)
def test_a_name_and_a_colon_make_a_message(line: str) -> None:
    assert not is_event_line(line)


@pytest.mark.parametrize(
    "name",
    ["Bob", "José-María", 'José "Pepe" López', "12:30 Club", "+44 7700 900123", "Added Value Ltd.", "ながれ", "선생님",
     "O'Neil, Jr.", "The Left", "Family: new", "ХИМИЯ на дому", "小明"],
)  # fmt: skip
def test_names_are_no_events(name: str) -> None:
    assert not is_event(name)


@pytest.mark.parametrize(
    "words",
    [
        "Messages and calls are end-to-end encrypted. Only people in this chat can read, listen to, or share them.",
        "Les messages et les appels sont chiffrés de bout en bout. Seules les personnes de cette discussion…",
        "Wiadomości i połączenia są w pełni zaszyfrowane. Nikt spoza czatu…",
        "\u200fההודעות והשיחות מוצפנות מקצה-לקצה. לאף אחד…",
        "消息和通话都进行端到端加密。对话之外的任何人…",
        "Tin nhắn và cuộc gọi được mã hóa đầu cuối. Những người…",
    ],
)
def test_the_notice_is_known_whatever_follows_its_first_sentence(words: str) -> None:
    assert is_notice(words)
    assert not is_notice(f"he wrote: {words}")
