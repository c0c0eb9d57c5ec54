"""People keep one name in everything that is written, and it is not theirs."""

import pytest

from training.extraction.privacy.names import EVERYDAY, INVENTED
from training.extraction.privacy.people import Contacts, Pseudonyms
from training.speakers import fold

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
