"""Which rows of Messenger and Instagram are the app's own, in whatever language, and which are somebody's words."""

import pytest

from training.extraction.meta_rows import AppRows
from training.extraction.platform import Kind

PEOPLE = ("Orla Vale", "Piet Vos", "Ines Roth")
TALK = [("Orla Vale", "see you there"), ("Piet Vos", "hello")]


def kinds(*rows: tuple[str, str], people: tuple[str, ...] = PEOPLE, title: str = "Lake") -> list[Kind | None]:
    """What the rows are, in a file that holds them and some talk."""
    app = AppRows(people, [*rows, *TALK], title)
    return [app.kind(sender, text, False) for sender, text in rows]


def kind(text: str, sender: str = "Piet Vos") -> Kind | None:
    return kinds((sender, text))[0]


ROWS = {
    "en": ("Liked a message", "Piet sent an attachment.", "Piet started an audio call"),
    "de": ("Hat mit 😂 auf deine Nachricht reagiert", "Piet hat einen Anhang gesendet.", "Piet winkt dir zu!"),
    "fr": ("A réagi 😂 à votre message", "Piet a envoyé une pièce jointe.", "Piet a choisi le thème Lac"),
    "es": ("Reaccionó con 😂 a tu mensaje", "Piet envió un archivo adjunto.", "Piet cambió el tema a Lago"),
    "it": ("Ha reagito con 😂 al tuo messaggio", "Piet ha inviato un allegato.", "Piet ha avviato una videochiamata"),
    "nl": ("Reageerde met 😂 op je bericht", "Piet heeft een bijlage verzonden.", "Piet heeft een oproep gestart"),
    "pt": ("Curtiu uma mensagem", "Piet enviou um anexo.", "Piet alterou o tema para Lago"),
    "pl": ("Zareagował(a) 😂 na Twoją wiadomość", "Piet wysłał(a) załącznik.", "Piet zmienił(a) motyw na Jezioro."),
    "sv": ("Reagerade med 😂 på ditt meddelande", "Piet skickade en bilaga.", "Piet ändrade temat till Sjö."),
    "da": ("Reagerede med 😂 på din besked", "Piet har sendt en vedhæftet fil.", "Piet forlod gruppen."),
    "no": ("Reagerte med 😂 på meldingen din", "Piet sendte et vedlegg.", "Piet forlot gruppen."),
    "fi": ("Reagoi viestiisi: 😂", "Piet lähetti liitteen.", "Piet aloitti videopuhelun"),
    "cs": ("Reagoval(a) 😂 na vaši zprávu", "Piet odeslal(a) přílohu.", "Piet opustil(a) skupinu."),
    "hu": ("A következőt reagálta az üzenetedre: 😂", "Piet az előbb játszott. Most te jössz!"),
    "ro": ("A reacționat cu 😂 la mesajul tău", "Piet a părăsit grupul."),
    "tr": ("Mesajına 😂 ifadesini bıraktı", "Piet bir ek gönderdi.", "Piet gruptan ayrıldı."),
    "el": ("Αντέδρασε με 😂 στο μήνυμά σας", "Piet έστειλε ένα συνημμένο.", "Piet αποχώρησε από την ομάδα."),
    "ru": ("Отреагировал(а) 😂 на ваше сообщение", "Piet отправил(а) вложение.", "Piet начал(а) видеочат"),
    "uk": ("Відреагував(-ла) 😂 на ваше повідомлення", "Piet надіслав(-ла) вкладення."),
    "ar": ("تفاعل بـ 😂 مع رسالتك", "أرسل Piet مرفقًا.", "بدأ Piet مكالمة فيديو"),
    "he": ("הגיב/ה ב-😂 להודעה שלך", "Piet שלח/ה קובץ מצורף."),
    "hi": ("ने आपके मैसेज पर 😂 रिएक्शन दिया", "Piet ने एक अटैचमेंट भेजा"),
    "mr": ("Piet यांनी मॅसेज लाइक केला", "Piet ने एक ऑडिओ कॉल सुरू केला"),
    "bn": ("আপনার মেসেজে 😂 প্রতিক্রিয়া জানিয়েছেন", "Piet একটি অ্যাটাচমেন্ট পাঠিয়েছেন।"),
    "ta": ("உங்கள் செய்திக்கு 😂 எதிர்வினையாற்றினார்", "Piet ஒரு இணைப்பை அனுப்பினார்."),
    "te": ("మీ సందేశానికి 😂 ప్రతిస్పందించారు",),
    "id": ("Menanggapi pesan Anda dengan 😂", "Piet mengirim lampiran.", "Piet keluar dari grup."),
    "ms": ("Memberikan reaksi 😂 pada mesej anda", "Piet menghantar lampiran."),
    "th": ("ถูกใจข้อความ", "Piet ส่งไฟล์แนบ", "Piet เริ่มวิดีโอแชท"),
    "vi": ("Đã bày tỏ cảm xúc 😂 về tin nhắn của bạn ", "Piet đã gửi một file đính kèm.", "Piet đã tham gia cuộc gọi."),
    "ja": ("メッセージに「いいね！」しました", "Pietさんが添付ファイルを送信しました", "Pietが通話を開始しました"),
    "ko": ("Piet님이 회원님의 메시지에 😂 공감했습니다", "Piet님이 첨부 파일을 보냈습니다."),
    "zh": ("赞了一条消息", "Piet发送了附件", "Piet發起了視訊通話"),
}  # fmt: skip


@pytest.mark.parametrize("language", ROWS)
def test_rows_in_the_languages_of_the_apps(language: str) -> None:
    for row in ROWS[language]:
        assert kind(row) is not None, row
        if "Piet" in row:  # told of somebody else, or of nobody in this chat, it is what somebody wrote
            assert kind(row, "Ines Roth") is None
            assert kind(row.replace("Piet", "Somebody")) is None
        assert kind(f"look: {row}") is None


def test_a_reaction_is_a_reaction() -> None:
    for row in (
        "Reacted 👍 to your message ",
        "Piet reacted 👍 to your message",
        "Curtiu uma mensagem",
        "Piet liked a message",
    ):
        assert kind(row) is Kind.REACTION
    for words in ("liked a message", "Liked a message of yours", "Reacted badly to your message", "I liked a message"):
        assert kind(words) is None


def test_a_nickname_is_learnt_from_the_row_that_gave_it() -> None:
    given = ("Orla Vale", "Orla set the nickname for Piet Vos to Captain Tide.")
    rows = ("Piet Vos", "Captain Tide joined the call."), ("Ines Roth", "Captain Tide joined the call.")
    assert kinds(given, *rows) == [Kind.SYSTEM, Kind.CALL, None]
    assert kinds(rows[0]) == [None]


@pytest.mark.parametrize(
    "given", [("Orla Vale", "You set your nickname to Otter."), ("Piet Vos", "Piet set your nickname to Otter.")]
)
def test_the_owners_nickname_is_learnt_too(given: tuple[str, str]) -> None:
    people = ("Orla Vale", "Piet Vos")
    mine, theirs = ((who, "Otter left the group.") for who in people)

    assert kinds(given, mine, people=people, title="Piet Vos") == [Kind.SYSTEM, Kind.SYSTEM]
    assert kinds(given, mine, theirs, people=people, title="Piet Vos") == [Kind.SYSTEM, None, None]


def test_under_a_nickname_one_may_give_the_next() -> None:
    rows = [
        ("Orla Vale", "Orla set the nickname for Piet Vos to Tide."),
        ("Piet Vos", "Tide set the nickname for Ines Roth to The Last of the Otters."),
        ("Ines Roth", "The Last of the Otters joined the call."),
    ]
    assert kinds(*rows) == [Kind.SYSTEM, Kind.SYSTEM, Kind.CALL]


@pytest.mark.parametrize("name", ["piet.v", "pietv", "vos_99", "the.piet"])
def test_a_user_name_that_holds_the_senders_name_is_theirs(name: str) -> None:
    assert kinds(("Piet Vos", f"{name} started an audio call"), ("Ines Roth", f"{name} started an audio call")) == [
        Kind.CALL,
        None,
    ]


def test_another_user_name_needs_three_rows_and_no_other_use() -> None:
    deeds = ["moonlit started an audio call", "moonlit liked a message", "moonlit sent an attachment."]
    rows = [("Piet Vos", deed) for deed in deeds]
    assert None not in kinds(*rows)
    assert kinds(*rows[:2]) == [None, None]
    assert kinds(*rows, ("Piet Vos", "moonlit lake tonight?")) == [None] * 4
    assert kinds(*[rows[0]] * 3) == [None] * 3


def test_the_owner_is_you_with_or_without_a_full_stop() -> None:
    people = ("Orla Vale", "Piet Vos")

    def of_owner(text: str) -> Kind | None:
        return kinds(("Orla Vale", text), people=people, title="Piet Vos")[0]

    for row in (
        "You started an audio call",
        "You added to a collection: us",
        "Você alterou o tema para Oceano",
        "Bạn đã đặt cảm xúc nhanh thành ❤.",
        "Hai inviato un allegato.",
        "Du hast einen Anhang gesendet.",
        "Has cambiado el tema a Mar.",
        "Je hebt een bijlage verzonden.",
        "Вы изменили тему на Море",
        "आपने एक अटैचमेंट भेजा",
        "तुम्ही थीम बदलून समुद्र केली",
        "คุณส่งไฟล์แนบ",
        "あなたが添付ファイルを送信しました",
        "회원님이 첨부 파일을 보냈습니다.",
        "你发送了附件",
        "أرسلت مرفقًا",
        "You left the group.",
    ):
        assert of_owner(row) is not None, row
        assert kinds(("Piet Vos", row), people=people, title="Piet Vos") == [None]
    for words in (
        "You left the group",
        "You named the group wrong",
        "Hai ragione",
        "You set it to 11.",
        "Vous avez raison.",
    ):
        assert of_owner(words) is None


def test_an_attachment_may_come_under_a_nickname_that_no_row_tells() -> None:
    app = AppRows(PEOPLE, TALK, "Lake")
    assert app.kind("Piet Vos", "Skipper sent an attachment.", True) is Kind.MEDIA
    assert app.kind("Piet Vos", "Skipper sent an attachment.", False) is None
    assert app.kind("Piet Vos", "He sent an attachment.", True) is None
    assert app.kind("Piet Vos", "my boss sent an attachment.", True) is None


def test_games_and_waves() -> None:
    for row in ("Rowing: Piet scored 21", "Piet is waving at you!", "Piet has taken your quiz. Find out their score!"):
        assert kind(row) is Kind.SYSTEM
        assert kind(row, "Ines Roth") is None
