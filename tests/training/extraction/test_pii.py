"""What is personal goes, what is not stays byte for byte."""

from collections import Counter

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import iban, luhn
from stdnum.fr import nir

from training.extraction.pii import DEFAULT_REGIONS, KINDS, Masker, canonical, find, regions_of


def mask(text: str, regions: tuple[str, ...] = DEFAULT_REGIONS) -> str:
    return Masker(regions).mask(text)


CASES = {
    "écris à lea.moreau@example.org !": "écris à [email] !",
    "tel 06 12 34 56 78 (le soir)": "tel [phone] (le soir)",
    "06.12.34.56.78 ou +33612345678": "[phone] ou [phone]",
    "call (415) 555-0132 at 10:30": "call [phone] at 10:30",
    "https://wa.me/33612345678": "https://wa.me/[phone]",
    "vire sur FR76 6761 2220 2972 9975 2882 018 avant le 5": "vire sur [iban] avant le 5",
    "visa 4760 3137 2159 0106 exp 11/26": "visa [card] exp 11/26",
    "ma sécu 1 95 05 2A 004 115 59": "ma sécu [id]",
    "ssn 536-90-4399": "ssn [id]",
    "ssh root@192.0.2.146, ou 2001:db8::53": "ssh root@[ip], ou [ip]",
    "https://bob:hunter2@wiki.example.org/a?b=1": "https://[secret]@wiki.example.org/a?b=1",
    "https://a.example/x?token=abcdefgh&page=2": "https://a.example/x?token=[secret]&page=2",
    "key sk-" + "proj-Ab3dEf6hIj9kLmNoPqRsTuVwXyZ012345": "key [key]",
    "AKIA" + "QWERTYUIOPASDFGH": "[key]",
    "https://api.telegram.org/bot110201543:" + "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe": "https://api.telegram.org/"
    "[key]/getMe",
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ1\n-----END PRIVATE KEY-----\nok": "[key]\nok",
    "0612345678@example.org": "[email]",
    "id42 FR76 6761 2220 2972 9975 2882 018": "id42 [iban]",
    "rdv 05/03/2024 06 12 34 56 78, 05.03.24 0612345678": "rdv 05/03/2024 [phone], 05.03.24 [phone]",
    "à 14:05 06 12 34 56 78, 06 12 34 56 79": "à 14:05 [phone], [phone]",
    "0612345678,0612345679:0612345680/0612345681": "[phone],[phone]:[phone]/[phone]",
    "020 7946 0000 020 7946 0001 020 7946 0002": "[phone] [phone] [phone]",
    "٠٦١٢٣٤٥٦٧٨": "[phone]",
    # Named as what they are, or one of a list: what stands around them makes no other number of them.
    "order it on my card 4539578763621486": "order it on my card [card]",
    "visa4539578763621486, 09/27 5123456789012346": "visa[card], 09/27 [card]",
    "4539578763621486,5123456789012346/4539578763621486": "[card],[card]/[card]",
    "4539 5787 6362 1486 5123 4567 8901 2346": "[card] [card]",
    "2. 4539578763621486 ok": "2. [card] ok",
    "pour le groupe, ma sécu : 289116923402497": "pour le groupe, ma sécu : [id]",
    "289116923402497,289116923402497": "[id],[id]",
    "her social is 402118834": "her social is [id]",
    "ip 192.168.1.10 masque 255.255.255.0": "ip [ip] masque 255.255.255.0",
    "ping 8.96.0.207, 5.39.71.10:8080, http://5.39.71.10/": "ping [ip], [ip]:8080, http://[ip]/",
    "82.64.113.207 et 10.0.0.12,10.0.0.14": "[ip] et [ip],[ip]",
    "dev 192.168.0.10": "dev [ip]",
    "ajoute-moi au groupe 06 12 34 56 78": "ajoute-moi au groupe [phone]",
}


@pytest.mark.parametrize("text", CASES)
def test_what_is_personal_becomes_a_word(text: str) -> None:
    assert mask(text) == CASES[text]


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1-beta, v2.3.4.5, 1.2.3.4, chrome 120.0.6099.129",
        "le 12/03/2024 à 14h30, 2023-11-05 18:42:10",
        "12 500 000 €, $1,250.00, 3-1 6-4 7-6 6-7 10-8",
        "commande n° 402-1234567-8901234, 1Z999AA10123456784",
        "#12345678 @theo_le_vrai 48.8583 ou 2.2944",
        "loto 07 12 23 34 45 49",
        "https://shop.example.com/p/1234567890?color=bleu&page=2",
        "a::b, 1::2, std::vector, 00:1A:2B:3C:4D:5E, 127.0.0.1",
        "4970 1948 2199 3516, FR76 6761 2220 2972 9975 2882 019, 289116923402498",
        "[phone] [email] [iban] [card] [id] [ip] [key] https://[secret]@x.example/?token=[secret]",
        "x = y, a=b&token=no",
        # masks and what is sent to all
        "netmask 255.255.252.0, wildcard 0.0.0.255, 255.255.0.0/16",
        "255.255.255.255 et 224.0.0.251",
        # versions, sections and scores
        "pi, 3.14.15.92 non ? ou 192.168",
        "chat 2.23.20.76, section 4.12.3.10, skype 8.96.0.207",
        "iOS 10.3.3.14, macOS 10.15.7.10, maj 10.2.4.12, le 12.03.20.24",
        "12:30:45:10, 1:2:3:4:5:6:7:8, 10:20:30::",
        # sums
        "$1.200.100.250, 1.200.100.250 €, Rp 1.200.100.250, 1.200.100.250,50 ou 1.200.100.250 euros",
        # decimals
        "loss 1.4539578763621486 puis 0,4539578763621486",
        "x=.4539578763621486, -0.289116923402497",
        # posts, groups and files
        "https://page.example/groups/289116923402497/posts/4539578763621486/",
        "page.example/groups/289116923402497/posts/4539578763621486?a=1",
        "www.page.example/4539578763621486, /posts/4539578763621486, groups/289116923402497",
        "story_fbid=4539578763621486&id=289116923402497",
        "photo_4539578763621486_n.jpg, clip_4539578763621486",
        "le post 4539578763621486 du groupe 289116923402497",
        "#4539578763621486 #289116923402497 @4539578763621486",
        "social media 402118834, https://page.example/p/536-90-4399",
        # parcels and orders
        "colis n° 4539578763621486, tracking 4539 5787 6362 1486",
        "9400 4539 5787 6362 1486",
        "JD4539578763621486, id4539578763621486, 4539578763621486FR, ORD-4539578763621486, 2024-4539578763621486",
        "commande 5123456789012346, imei 371234567890120, order 289116923402497, ref 536-90-4399",
    ],
)
def test_what_is_not_stays_the_same_object(text: str) -> None:
    assert mask(text) is text


NAMED = {
    "mdp: Tulipe!42 ok": "mdp: [secret] ok",
    "the password is maple77tree, all lower": "the password is [secret], all lower",
    'passwort: "roter hund"': 'passwort: "[secret]"',
    "senha do wifi = goiaba_9": "senha do wifi = [secret]",
    "clave: pezvolador": "clave: [secret]",
    "wifi: kiwi-otter-4 (invités)": "wifi: [secret] (invités)",
    "şifresi Gofret_31 tamam": "şifresi [secret] tamam",
    "пароль от вайфая Berezka-9": "пароль от вайфая [secret]",
    "密码:xiaogou88": "密码:[secret]",
    "digicode 24A71 puis 2e": "digicode [secret] puis 2e",
    "le code reçu par sms : 551 204": "le code reçu par sms : [secret]",
    "your OTP is 910284.": "your OTP is [secret].",
    "PIN 4417 aber psst": "PIN [secret] aber psst",
    "cvv 903 exp 11/27": "cvv [secret] exp 11/27",
    "código do portão é 4471*": "código do portão é [secret]",
    "snap : capucine.v": "snap : [account]",
    "insta @nils.draussen": "insta [account]",
    "gpay arun.k7@okicici": "gpay [account]",
    "https://chat.whatsapp.com/Jq3LmZ8RtYwX2aBcDeFgHi viens": "https://chat.whatsapp.com/[secret] viens",
    "t.me/+Qw3rTy7uIoPaSdFg": "t.me/+[secret]",
    "discord.gg/Xy7kPq2": "discord.gg/[secret]",
    "https://app.example.org/reset-password/9c1d8e7f6a5b4c3d2e1f": "https://app.example.org/reset-password/[secret]",
    "écris à zoe arobase exemple point fr": "écris à [email]",
    "ada.lind [at] example.org": "[email]",
    "mail: tom at example dot com": "mail: [email]",
    "vera собака primer точка ru": "[email]",
    "rdv 48.85341, 2.34880": "rdv [location]",
    "https://maps.example.com/@48.8534,2.3488,17z": "https://maps.example.com/@[location],17z",
    "45°45'35\"N 4°50'32\"E": "[location]",
    "cpf 529.982.247-25": "cpf [id]",
    "meu cpf é 52998224725": "meu cpf é [id]",
    "dni 12345678Z": "dni [id]",
    "aadhaar 2341 2341 2346": "aadhaar [id]",
    "pan ABCPE1234F": "pan [id]",
    "cf RSSMRA85T10A562S": "cf [id]",
    "appelle 06 12 34\n56 78": "appelle [phone]",
    "+33612345678+33612345679": "[phone][phone]",
}


@pytest.mark.parametrize("text", NAMED)
def test_what_a_word_or_a_form_makes_personal(text: str) -> None:
    assert mask(text) == NAMED[text]


@pytest.mark.parametrize(
    "text",
    [
        "password is wrong again, reset it in 5 minutes",
        "password: at least 8 characters",
        "wifi: 3 bars, 40mbps",
        "mot de passe refusé 3 fois à 22h30",
        "zip code 90210, area code 2125, error code: 5001",
        "code postal 69003, code promo HIVER10, code APE 6201Z",
        "my referral code is FRIEND20, course code CS2040",
        "the code is due in 2024",
        "pin 3 is 5v, le pin 2300 m d'altitude",
        "otp since 2016",
        "could still pass my CS236 class",
        "snap: it broke",
        "insta live @ 8pm",
        "https://www.example.com/blog/reset-your-password-in-5-steps",
        "look at bikes dot com",
        "lr 0.0001, 0.0005",
        "52998224725",
        "2019 2020 2021",
    ],
)
def test_words_alone_make_nothing_personal(text: str) -> None:
    assert mask(text) is text


@pytest.mark.parametrize(
    ("language", "number"),
    [
        ("el", "6912 345 678"),
        ("tr", "532 765 43 21"),
        ("ko", "010-2345-6789"),
        ("ru", "8 (912) 345-67-89"),
        ("zh", "13812345678"),
        ("hi", "98765 43210"),
        ("id", "0812-3456-7890"),
        ("sv", "070-123 45 67"),
        ("ro", "0722 345 678"),
        ("pt", "11 98765-4321"),
    ],
)
def test_national_numbers_of_the_language_of_the_chats(language: str, number: str) -> None:
    assert mask(f"ok {number}", regions_of([], [language])) == "ok [phone]"


@pytest.mark.parametrize("text", ["25-19 22-25 25-21", "заказ 89161234567", "2023-11-05 18:42:10", "1 000 000 000"])
def test_scores_orders_dates_and_sums_are_no_numbers_in_any_country(text: str) -> None:
    assert mask(text, regions_of([], ["ru", "tr", "zh", "hi", "es", "pt"])) is text


def test_counts_by_kind() -> None:
    masker = Masker()
    masker.mask("a@example.org b@example.org 06 12 34 56 78")
    masker.mask("c@example.org")
    assert masker.counts == Counter(email=3, phone=1)
    assert masker.counts.keys() <= set(KINDS)


def test_national_numbers_of_the_regions_of_a_run() -> None:
    belgian = "0470 12 34 56"
    regions = regions_of(["Léa", "+32 470 12 34 56"], languages=["es"])
    assert {*DEFAULT_REGIONS, "BE", "ES", "MX"} <= set(regions)
    assert mask(f"c'est {belgian}", regions) == "c'est [phone]"
    assert mask("612 34 56 78", regions) == "[phone]"
    assert canonical(belgian, regions) == "+32470123456"


WITHOUT = st.text(st.characters(codec="utf-8", exclude_categories=["Nd"], exclude_characters="@=A"))
PIECES = st.sampled_from(
    [
        *(
            "mdp",
            "code",
            "pin",
            "wifi",
            "insta",
            "cvv",
            "密码",
            "İ",
            "is",
            "'s ",
            ":",
            "=",
            "-",
            "[",
            "]",
            "/",
            "«",
            '"',
        ),
        *(" ", " ", " ", "\n", "1234", "482 913", "abc12x", "2019", "@x_y", "your ", " at ", " dot ", "com"),
        *("cpf 529.982.247-25", "48.85341, 2.34880", "t.me/+", "Qw3rTy7uIoPaSdFg", "+33612345678", "06 12 34"),
        *("56 78", "4539578763621486", "x@y.zz"),
    ]
)
SENTENCES = st.lists(PIECES, max_size=14).map("".join)
NEAR = st.text(st.sampled_from("0123456789 +-./()@:=?&#[]abfsgAIKFR_xn\n\u00a0"), max_size=60)


@given(WITHOUT)
def test_text_without_candidates_is_unchanged(text: str) -> None:
    assert mask(text) is text


@given(NEAR | st.text() | SENTENCES)
def test_masking_twice_is_masking_once(text: str) -> None:
    once = mask(text)
    assert mask(once) is once


@given(st.lists(NEAR | st.text() | SENTENCES, max_size=200))
def test_masking_many_is_masking_each(texts: list[str]) -> None:
    assert Masker().mask_all(texts) == list(map(mask, texts))


@given(NEAR | st.text() | SENTENCES)
def test_finds_are_in_order_and_apart(text: str) -> None:
    finds = find(text)
    places = [place for one in finds for place in (one.start, one.end)]
    assert places == sorted(places)
    assert all(one.start < one.end for one in finds)


def _digits(number: int) -> st.SearchStrategy[str]:
    return st.text(st.sampled_from("0123456789"), min_size=number, max_size=number)


def _grouped(number: str, size: int) -> str:
    return " ".join(number[start : start + size] for start in range(0, len(number), size))


IBANS = _digits(18).map(lambda digits: f"DE{iban.calc_check_digits('DE00' + digits)}{digits}").filter(iban.is_valid)
CARDS = _digits(14).map(lambda digits: f"4{digits}{luhn.calc_check_digit('4' + digits)}")
NIRS = st.builds("{}{:02}{:02}{:02}{}".format, *(st.integers(1, n) for n in (2, 99, 12, 95)), _digits(6)).map(
    lambda digits: digits + nir.calc_check_digits(digits + "00")
)
MAILS = st.from_regex(r"[a-z][a-z0-9._]{0,12}[a-z0-9]@[a-z][a-z0-9-]{0,10}[a-z]\.(com|org|fr|example)", fullmatch=True)
PHONES = st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)).flatmap(
    lambda region: st.sampled_from(
        [
            phonenumbers.format_number(example, style)
            for kind in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)
            if (example := phonenumbers.example_number_for_type(region, kind)) is not None
            if len(str(example.country_code)) + len(phonenumbers.national_significant_number(example)) > 6
            for style in (phonenumbers.PhoneNumberFormat.E164, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
        ]
        or ["+33612345678"]
    )
)
FRENCH = st.builds(lambda first, rest: f"0{first}{rest}", st.sampled_from("1234567"), _digits(8)).flatmap(
    lambda number: st.sampled_from([number, _grouped(number, 2), _grouped(number, 2).replace(" ", ".")])
)
AROUND = st.sampled_from(["", "ok ", "c'est le ", "(", "→ ", "mon num : ", "\n", "14h "])
AFTER = st.sampled_from(["", " ok", ".", ")", " !", ", merci", "\n", " 14h"])


@given(
    st.one_of(
        IBANS,
        IBANS.map(lambda n: _grouped(n, 4)),
        CARDS,
        CARDS.map(lambda n: _grouped(n, 4)),
        NIRS,
        MAILS,
        PHONES,
        FRENCH,
    ),
    AROUND,
    AFTER,
)
def test_no_generated_value_remains(value: str, before: str, after: str) -> None:
    masked = mask(before + value + after)
    assert not any(character.isdigit() for character in masked.replace("14h", "")), masked
    assert "@" not in masked
    assert masked.startswith(before + "[")
    assert masked.endswith("]" + after)


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "1", "1 ", "+1 ", "@", "a@", "=", "?token=", "a.", "1:", "f:", "sk-", "FR76 ", "ab12 ", "0/", "-eyJ"),
        *("+33612345678", "password ", "pin ", "wifi_", "insta@", "/invite/", "a dot ", "[at]", "1.2345,", "X-1"),
        *("06 12 34 56 78 ", "0612345678,", "0612345678.", "020 7946 0000 ", "-----BEGIN PRIVATE KEY-----"),
    ],
)
def test_long_lines_are_masked_whole(unit: str) -> None:
    """In milliseconds; a pattern that tries each place anew takes a minute or more."""
    assert "noa" not in mask(f"1234567890123456 {unit * (100_000 // len(unit))} noa@b.example")
