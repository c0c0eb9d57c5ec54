"""People keep one name in everything that is written, and it is not theirs."""

import csv
import json
import stat
from pathlib import Path

import pytest

from ghost.cli import main
from tests.training.extraction.exports import save
from training.extraction.people import EVERYDAY, INVENTED, Contacts, Pseudonyms
from training.extraction.speakers import fold

SPELLINGS = (
    "+33 6 12 34 56 78",
    "\u202a+33\u00a06\u00a012\u00a034\u00a056\u00a078\u202c",
    "06 12 34 56 78",
    "0612345678",
    "33612345678",
    "+33 (0)6 12 34 56 78",
    "~\u202f+33 6 12 34 56 78",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_number_is_one_contact_however_it_is_spelled(spelling: str) -> None:
    contacts = Contacts()
    assert contacts.sender("+1 415-555-0132") == "Contact 1"
    assert contacts.sender(SPELLINGS[0]) == "Contact 2"
    assert contacts.sender(spelling) == contacts.title(spelling) == "Contact 2"


@pytest.mark.parametrize("name", ["Léa", "~ Bob", "38000", "Agent 007", "2022", "🔥", ""])
def test_other_names_stay(name: str) -> None:
    assert Contacts().sender(name) is name


def test_nobody_gets_the_name_of_somebody_who_is_called_so() -> None:
    contacts = Contacts(["contact 1", "+1 415-555-0132"])
    assert [contacts.sender(name) for name in ("+1 415-555-0132", "contact 1")] == ["Contact 2", "contact 1"]


def test_contacts_are_numbered_as_they_come_in_every_run(tmp_path: Path) -> None:
    people = [f"+33 6 12 34 56 {number}" for number in range(10, 40)]
    chat = "".join(f"13/03/2022, 14:56 - {name}: hi {number}\n" for number, name in enumerate(people))
    assert main(["extract", str(save(tmp_path, chat, "Club.txt")), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out/whatsapp/Club.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["sender"] for row in csv.DictReader(stream)] == [f"Contact {number}" for number in range(1, 31)]


def test_a_mail_address_is_a_contact_too() -> None:
    contacts = Contacts()
    assert contacts.sender("Lea@example.org") == contacts.sender("lea@example.org") == "Contact 1"


def test_numbers_within_titles() -> None:
    contacts = Contacts()
    assert contacts.title("+1 415-555-0132, 06 12 34 56 78") == "Contact 1, Contact 2"
    assert contacts.title("Plombier 06 12 34 56 78") == "Plombier Contact 2"
    assert contacts.title("in/WhatsApp Chat with +1 415-555-0132 (1).txt") == "in/WhatsApp Chat with Contact 1 (1).txt"
    assert contacts.title("+49 1512 3456789 14h") == "Contact 3 14h"


@pytest.mark.parametrize("people", [Contacts, Pseudonyms])
def test_bare_digits_in_a_title_that_are_somebodys_number(people: type[Contacts] | type[Pseudonyms]) -> None:
    numbered = people(["33612345678", "81234567", "91 23 45 67"])
    for title in ("in/Chat with 33612345678 (1).txt", "in/Chat_with_81234567.txt", "81234567, 91 23 45 67"):
        assert not any(number in numbered.title(title) for number in ("12345", "1234", "23 45")), title
    assert numbered.title("Best of 20242025") == "Best of 20242025"


def test_my_own_number_stays_in_the_sender_column() -> None:
    assert Contacts(me=["+33612345678"]).sender("+33 6 12 34 56 78") == "+33 6 12 34 56 78"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("salut @33612345678 ça va", "salut @Contact 1 ça va"),
        ("@\u2068+33 6 12 34 56 78\u2069 ok", "@\u2068Contact 1\u2069 ok"),
        ("@+33 6 12 34 56 78 14h", "@Contact 1 14h"),
        ("@33612345678, @33612345678!", "@Contact 1, @Contact 1!"),
        ("@\u2068Léa Martin\u2069 yo", "@\u2068Léa Martin\u2069 yo"),
        ("@2024 @12h lea@example.org x@12345678.example", "@2024 @12h lea@example.org x@12345678.example"),
    ],
)
def test_mentions_of_numbers(body: str, expected: str) -> None:
    assert Contacts().body(body) == expected


def test_a_body_without_mentions_is_the_same_object() -> None:
    body = "rien à voir, a@b"
    assert Contacts().body(body) is body
    assert Pseudonyms(["Léa"]).body(body) is body


def test_the_invented_names_are_many_and_nobodys() -> None:
    assert len(set(INVENTED)) == len(INVENTED) >= 200
    assert EVERYDAY.isdisjoint(map(fold, INVENTED))
    assert set(map(fold, EVERYDAY)) == EVERYDAY


def test_no_two_people_share_a_name_and_me_keeps_mine() -> None:
    names = [f"Person {number}" for number in range(600)]
    pseudonyms = Pseudonyms([*names, "Zoé"], me=["zoé"])
    invented = {pseudonyms.sender(name) for name in names}
    assert len(invented) == len(names)
    assert pseudonyms.sender("Zoé") == "Zoé"


def test_names_do_not_depend_on_the_order_of_files() -> None:
    names = ["Léa Martin", "Marie Curie", "Marie Dupont", "+33612345678", "Hugo"]
    one, other = Pseudonyms(names), Pseudonyms(reversed(names))
    assert [one.sender(name) for name in names] == [other.sender(name) for name in names]
    assert one.body("Marie et Léa") == other.body("Marie et Léa")


def test_an_invented_name_is_never_one_that_somebody_has() -> None:
    alone = Pseudonyms(["Léa"]).sender("Léa")
    assert Pseudonyms(["Léa", f"{alone} Martin"]).sender("Léa") != alone
    assert Pseudonyms(["Léa"], me=[alone]).sender("Léa") != alone


@pytest.fixture
def people() -> Pseudonyms:
    names = ["Léa Martin", "Rose", "Jean-Pierre Le Goff", "Marie Curie", "Marie Dupont", "+33612345678", "Maman"]
    return Pseudonyms([*names, "Hugo Petit"], me=["Hugo Petit"])


@pytest.mark.parametrize(
    ("body", "replaced"),
    [
        ("léa tu viens ?", {"léa": "Léa Martin"}),
        ("lea, hein", {"lea": "Léa Martin"}),
        ("LÉA MARTIN !!", {"LÉA MARTIN": "Léa Martin"}),
        ("c'est à Léa's", {"Léa": "Léa Martin"}),
        ("@Léa et @\u2068Léa Martin\u2069", {"Léa Martin": "Léa Martin", "Léa": "Léa Martin"}),
        ("@33612345678 ok", {"33612345678": "+33612345678"}),
        ("jean-pierre ou Jean pierre le goff", {"jean-pierre": "Jean-Pierre Le Goff"}),
        ("une rose pour Rose", {"Rose": "Rose"}),
        ("Rose est là. Rose aussi", {}),
        ("Jean ou pierre", {}),
        ("léandre, martin, Hugo, hugo petit, maman", {}),
    ],
)
def test_names_in_bodies(people: Pseudonyms, body: str, replaced: dict[str, str]) -> None:
    expected = body.replace("Jean pierre le goff", people.sender("Jean-Pierre Le Goff"))
    for spelling, name in replaced.items():
        expected = expected.replace(spelling, people.sender(name))
    assert people.body(body) == expected


def test_a_name_in_decomposed_letters(people: Pseudonyms) -> None:
    assert people.body("le\u0301a, voila\u0300") == f"{people.sender('Léa Martin')}, voilà"
    assert people.body("voila\u0300") == "voila\u0300"


def test_a_first_name_of_two_people_gets_a_name_of_its_own(people: Pseudonyms) -> None:
    marie = people.body("marie")
    assert marie not in ("marie", people.sender("Marie Curie"), people.sender("Marie Dupont"))
    assert people.body("Marie Curie") == people.sender("Marie Curie")


def test_titles(people: Pseudonyms) -> None:
    lea = people.sender("Léa Martin")
    assert people.title("Léa Martin") == lea
    assert people.title("Anniv de Léa") == f"Anniv de {lea}"
    assert people.title("Foot +33 6 12 34 56 78") == f"Foot {people.sender('06 12 34 56 78')}"
    assert people.title("Hugo Petit") == "Hugo Petit"
    assert people.title("in/Chat_with_Léa_Martin.txt") == f"in/Chat with {lea}.txt"
    assert people.title("in/the_end.txt") == "in/the_end.txt"


def test_a_part_of_a_user_name_is_no_name() -> None:
    people = Pseudonyms({"Paul Durand"}, {"Zoé"})
    assert people.body("suis @paul_verlaine, pas x_paul") == "suis @paul_verlaine, pas x_paul"
    assert "Paul" not in people.body("dis à Paul")


NUMBER = "+33 6 39 98 12 34"
CHAT = f"""13/03/2022, 14:56 - \u202a{NUMBER}\u202c: call me on 06 39 98 12 34 or lea@example.org
13/03/2022, 14:57 - Zoé: ok @33639981234, ask Bob Martin
13/03/2022, 14:58 - Bob Martin: Bob here, the code is 4412
13/03/2022, 14:59 - Zoé: salut
"""


def extract(folder: Path, *options: str) -> tuple[dict[str, list[list[str]]], dict[str, object]]:
    """Every CSV by its path within --out, header row left out, and the report."""
    source = save(folder, CHAT, f"WhatsApp Chat with {NUMBER}.txt")
    assert main(["extract", str(source), "--out", str(folder / "out"), *options]) == 0
    rows = {}
    for path in folder.joinpath("out").rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            rows[path.relative_to(folder / "out").as_posix()] = list(csv.reader(stream))[1:]
    return rows, json.loads((folder / "out" / "extraction_report.json").read_text("utf-8"))


def test_by_default_numbers_become_contacts_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, report = extract(tmp_path)
    assert [row[1:] for row in rows["whatsapp/Contact 1.csv"]] == [
        ["Contact 1", "call me on [phone] or [email]"],
        ["Zoé", "ok @Contact 1, ask Bob Martin"],
        ["Bob Martin", "Bob here, the code is [secret]"],
        ["Zoé", "salut"],
    ]
    assert report["masked"] == {"phone": 1, "email": 1, "secret": 1}
    written = "".join(path.read_text("utf-8") for path in (tmp_path / "out").rglob("*") if path.is_file())
    for place in (written, "".join(map(str, (tmp_path / "out").rglob("*"))), capsys.readouterr().out):
        assert not any(part in place for part in ("39 98", "3998", "+33", "12 34"))
        assert "example.org" not in place


def test_a_contact_keeps_its_number_in_later_extractions(tmp_path: Path) -> None:
    def senders(*numbers: str) -> set[str]:
        for number in numbers:
            save(tmp_path, f"20/03/2024, 10:00 - {number}: hi {number[-2:]}", f"in/{number}.txt")
        assert main(["extract", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
        found = tmp_path.joinpath("out", "whatsapp").glob("*.csv")
        return {path.stem for path in found if "hi 32" in path.read_text("utf-8")}

    assert senders("+1 415-555-0132") == {"Contact 1"}
    assert senders("+1 212-555-0101", "+1 310-555-0199") == {"Contact 1"}  # read before it
    assert "5550132" not in (tmp_path / "out" / "rows.json").read_text("utf-8")


def test_a_group_that_is_called_by_its_numbers(tmp_path: Path) -> None:
    mms = '<mms date="1647615360000" address="81234567~91234567" msg_box="2"><parts><part ct="text/plain" text="yo"/>'
    source = save(tmp_path, f"<smses>{mms}</parts></mms></smses>", "sms.xml")
    assert main(["extract", str(source), "--out", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out" / "sms").iterdir()] == ["Contact 1, Contact 2.csv"]
    assert "1234567" not in (tmp_path / "out" / "extraction_report.json").read_text("utf-8").replace(str(tmp_path), "")


def test_off_leaves_everything_as_it_was(tmp_path: Path) -> None:
    rows, report = extract(tmp_path, "--pii", "off")
    ((name, messages),) = rows.items()
    assert name == f"whatsapp/{NUMBER}.csv"
    assert messages[0][1:] == [NUMBER, "call me on 06 39 98 12 34 or lea@example.org"]
    assert report["masked"] == {}


def test_pseudonyms_leave_nobody_but_me(tmp_path: Path) -> None:
    rows, _ = extract(tmp_path, "--pseudonyms", "--me", "zoé")
    ((name, messages),) = rows.items()
    senders = [row[1] for row in messages]
    assert senders[1] == senders[3] == "Zoé"
    assert len(set(senders)) == 3
    assert name == f"whatsapp/{senders[0]}.csv"
    assert messages[1][2] == f"ok @{senders[0]}, ask {senders[2]}"
    assert "Martin" not in str(rows)
    assert extract(tmp_path, "--pseudonyms", "--me", "Zoé")[0] == rows
    assert extract(tmp_path, "--private", "--me", "Zoé")[0] == rows


def test_private_cannot_keep_personal_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "out"), "--private", "--pii", "off"]) == 2
    assert "--private masks personal data, and --pii off keeps it" in capsys.readouterr().err


def test_pseudonyms_need_to_know_who_is_who(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path, CHAT)
    assert main(["extract", str(source), "--out", str(tmp_path / "out"), "--pseudonyms"]) == 1
    assert "--me" in capsys.readouterr().err
    assert main(["extract", str(source), "--out", str(tmp_path / "out"), "--me", "Leo"]) == 1
    assert "--me 'Leo' sent none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unreadable_file_is_named_as_it_must_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, "%PDF-1.7", f"{NUMBER}.bin")
    save(tmp_path, CHAT, "chat.txt")
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert f"{NUMBER}.bin: a PDF" in capsys.readouterr().out.replace("\n", "")
    report = (tmp_path / "out" / "extraction_report.json").read_text("utf-8")
    assert not any(part in report for part in ("39 98", "3998", "+33"))


def test_reports_are_their_owners(tmp_path: Path) -> None:
    extract(tmp_path)
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
