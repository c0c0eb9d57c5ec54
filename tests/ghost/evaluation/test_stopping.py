from ghost.evaluation.data import Exchange
from ghost.evaluation.prompts import labels_in
from ghost.evaluation.replies import GeneratedReply, stopping
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn


def said(reply: str, ended: str, written: str) -> GeneratedReply:
    return GeneratedReply(Exchange((Turn("B:", "hey"),), reply, ended=ended), written, 3)


def test_how_replies_end_is_counted_before_the_cut() -> None:
    found = stopping(
        [
            said("yo", "end_token", " yo"),
            said("yo", "stop_sequence", " yo\nB:"),
            said("yo", "stop_sequence", " yo\nA:"),
            said("", "stop_sequence", " \n\n"),
            said("and B: so", "length", " and B: so"),
        ],
        DEFAULT_LABELS,
    )
    assert (found.itself.value, found.sequence.value, found.length.value) == (0.2, 0.6, 0.2)
    assert (found.for_the_other.value, found.on_and_on.value, found.empty.value) == (0.2, 0.2, 0.2)
    assert (found.itself.n, found.tokens) == (5, 3.0)
    assert found.itself.low < 0.2 < found.itself.high


def test_lines_with_labels_that_the_person_never_writes_are_counted() -> None:
    other = ["ok\nC: Hi", "User: hello", "Bob:\nx", " E: Interesting point", "well\nÉva: oui"]
    fine = ["PS: buy milk", "ps: milk", "12:30 then", "so\n18:04", "https://example.org", "plan B: go", "a : b", ":-)"]
    own = labels_in(["hey\nPs: I forgot", "Notes: x"])
    assert own == {"ps", "notes"}
    for replies, expected in ((other, 1.0), (fine, 0.0), ([*other, *fine], 5 / 13)):
        found = stopping([said(reply, "end_token", reply) for reply in replies], DEFAULT_LABELS, own)
        assert found.other_labels.value == expected
