"""`ghost start`: by flags alone, by questions, left and continued."""

import io
import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ghost import cli
from tests.light import one_line
from training import config as training_config
from training.finetuning import hardware

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]

FLAGS: dict[str, list[str]] = {
    "--exports": ["exports"],
    "--me": ["Noa"],
    "--others-agree": [],
    "--base": ["qwen3-4b"],
    "--home": ["server"],
    "--repo": ["noa/ghost"],
}


class Terminal(io.StringIO):
    """Standard input that is a terminal: a line for each answer. "^C" interrupts; after the last line comes Ctrl-D."""

    def isatty(self) -> bool:
        return True

    def readline(self, *_: Any) -> str:
        line = super().readline()
        if line == "^C\n":
            signal.raise_signal(signal.SIGINT)
        return line


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with exports of two chats, in which nothing was done yet."""
    for other in ("Malo", "Bea, the younger"):
        chat = "".join(
            f"{day:02}/03/2022, {hour:02}:{minute:02} - {name}: ça va, {other} ? {hour}:{minute}\n"
            for day in (17, 18, 19)
            for hour in range(24)
            for minute, name in ((1, other), (2, "Noa"), (40, other), (41, "Noa"))
        )
        path = tmp_path / "exports" / f"WhatsApp Chat with {other}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(chat, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr(hardware, "measure_core", lambda: 1.0)  # so slow a computer needs a GPU
    return tmp_path


def start(*names: str, **instead: str) -> list[str]:
    flags = FLAGS | {f"--{name}": [value] for name, value in instead.items()}
    return ["start", *(word for name in names or flags for word in (name, *flags[name]))]


def read(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def commands(told: str) -> list[str]:
    """The lines to type: what comes after the estimate, without titles."""
    lines = told.partition("Now read ")[2].splitlines()[1:-1]
    return [line for line in lines if line and not line.rstrip("*").endswith(":")]


@pytest.mark.usefixtures("home")
def test_by_flags_alone_it_needs_no_terminal_and_keeps_no_other_answers(capsys: Capture) -> None:
    assert cli.main(start()) == 0
    told = capsys.readouterr().out
    assert read("config/user_config.json") == {"user_identifiers": ["Noa"], "exclude_people": []}
    assert read("config/start.json") == {
        "exports": ["exports"],
        "extracted": True,
        "agreed": ["Bea, the younger", "Malo"],
        "base": "qwen3-4b",
        "home": "server",
        "repo": "noa/ghost",
    }
    assert read("data/processed/preparation_report.json")["your_names"] == ["Noa"]
    assert "$ ghost estimate --base qwen3-4b" in told

    assert cli.main(["start"]) == 0  # all is known
    assert commands(capsys.readouterr().out) == commands(told)


@pytest.mark.usefixtures("home")
def test_each_missing_answer_names_its_flag_and_those_before_it_are_kept(capsys: Capture) -> None:
    for flag, known in zip(FLAGS, [None, *FLAGS], strict=False):
        assert cli.main(start(known) if known else ["start"]) == 2
        assert f"add {flag}" in one_line(capsys.readouterr().err)
    assert cli.main(start("--repo")) == 0


@pytest.mark.parametrize("place", ["laptop", "server", "replicate", "nowhere"])
@pytest.mark.parametrize("rate", [1.0, 1e14])
@pytest.mark.usefixtures("home")
def test_every_line_to_type_is_one_that_ghost_and_a_shell_understand(
    place: str, rate: float, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "measure_core", lambda: rate)
    assert cli.main(start(home=place, base="smollm2-135m")) == 0
    lines = commands(capsys.readouterr().out)
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True)
    verbs = []
    for line in lines:
        for _, *words in re.findall(r"(?:^|&& )(ghost) (.*?)(?= &&|$)", line):
            arguments = shlex.split(words[0], comments=True)
            cli.build_parser(arguments[0]).parse_args(arguments)
            verbs.append(arguments[0])
    assert {"train", "merge", "check"} <= set(verbs)
    assert any(line.startswith("ssh") and "$BOX" in line for line in lines) == (rate == 1.0)
    assert ("serve" in verbs, "release" in verbs) == (place == "laptop", place == "replicate")
    assert any(line.startswith("docker compose up") for line in lines) == (place == "server")


@pytest.mark.usefixtures("home")
def test_what_leaves_this_machine_exists_and_holds_no_chats_or_names_but_the_training_lines(capsys: Capture) -> None:
    assert cli.main(start()) == 0
    lines = [line for line in commands(capsys.readouterr().out) if line.startswith("rsync -aR --exclude weights ")]
    assert len(lines) == 2  # to the GPU, and to the server
    for line in lines:
        sources = line.removeprefix("rsync -aR --exclude weights ").rpartition(" ")[0]
        done = subprocess.run(["bash", "-c", f"printf '%s\\n' {sources}"], capture_output=True, text=True, check=True)
        paths = [Path(path) for path in done.stdout.splitlines()]
        assert all(path.exists() for path in paths), line
        private = [ROOT, *(ROOT / name for name in ("config", "data", "models", "config/user_config.json"))]
        assert not {*private, ROOT / "config" / "bot.yaml"} & {path.resolve() for path in paths}


def test_installed_from_a_clone_it_copies_the_clone_that_it_is_called_in(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("ghost.start.CLONE", None)  # as `pip install .` leaves it
    (home / "compose.yaml").touch()
    assert cli.main(start()) == 0
    lines = commands(capsys.readouterr().out)
    assert sum(line.startswith(f"rsync -aR --exclude weights {home}/./{{") for line in lines) == 2


def answer(monkeypatch: pytest.MonkeyPatch, *lines: str) -> int:
    monkeypatch.setattr("sys.stdin", Terminal("".join(f"{line}\n" for line in lines)))
    return cli.main(["start"])


@pytest.mark.usefixtures("home")
def test_questions_are_asked_again_until_they_are_answered_and_it_continues_where_it_was_left(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert answer(monkeypatch, "", "nowhere.zip", "it's", "exports", "Nora", "^C") == 128 + signal.SIGINT
    told = capsys.readouterr()
    assert "continue" in one_line(told.err)
    assert "nowhere.zip: no such file or folder" in told.out
    assert "288 messages" in told.out  # Noa's, in the list of senders
    assert not Path("config/user_config.json").exists()

    assert answer(monkeypatch, "", "no", "Bea") == 128 + signal.SIGINT  # Noa, who is in both chats
    told = capsys.readouterr()
    assert "$ ghost extract" not in told.out
    assert read("config/user_config.json") == {"user_identifiers": ["Noa"], "exclude_people": []}

    assert answer(monkeypatch, "Bea, the younger", "9", "3", "4", "noa", "noa/ghost") == 0
    assert read("config/user_config.json")["exclude_people"] == ["Bea, the younger"]
    assert read("config/start.json")["base"] == "qwen3-4b"
    assert read("config/start.json")["home"] == "nowhere"
    assert read("data/processed/preparation_report.json")["left_out"]["people"]["messages"] == 144


def test_what_a_person_changed_stays_changed(home: Path, capsys: Capture) -> None:
    settings = {"timezone": "Europe/Paris", "exclude_people": ["Malo"]}
    Path("config").mkdir()
    Path("config/user_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert cli.main(start()) == 0
    assert read("config/user_config.json") == settings | {"user_identifiers": ["Noa"]}  # he did not agree

    chat = Path("data/cleaned/whatsapp/Bea, the younger.csv")
    rows = chat.read_text(encoding="utf-8").splitlines(keepends=True)
    chat.write_text("".join(rows[:-1]), encoding="utf-8")
    assert cli.main(start()) == 0
    assert chat.read_text(encoding="utf-8") == "".join(rows[:-1])
    assert read("data/processed/preparation_report.json")["messages"]["read"] == 2 * 288 - 1
    capsys.readouterr()

    shutil.copytree("exports", "others")
    assert cli.main(start(exports="others")) == 0  # these were not read yet
    assert "$ ghost extract others" in capsys.readouterr().out
    assert chat.read_text(encoding="utf-8") == "".join(rows[:-1])  # what was deleted stays deleted


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("exports", "nowhere.zip", "nowhere.zip: no such file"),
        ("me", "Nora", "Did you mean 'Noa'?"),
        ("base", "qwen3", "did you mean qwen3-4b?"),
        ("repo", "ghost", "OWNER/NAME"),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_wrong_answer_is_refused_and_not_kept(flag: str, value: str, told: str, capsys: Capture) -> None:
    assert cli.main(start(**{flag: value})) in (1, 2)
    assert told in capsys.readouterr().err
    kept = [Path("config/start.json"), Path("config/user_config.json")]
    assert not any(value in path.read_text(encoding="utf-8") for path in kept if path.exists())
    assert cli.main(start()) == 0


@pytest.mark.usefixtures("home")
def test_a_file_that_cannot_be_read_is_said_and_the_others_go_on(capsys: Capture) -> None:
    Path("exports/notes.txt").write_text("milk, bread\n", encoding="utf-8")
    assert cli.main(start()) == 0
    told = capsys.readouterr().out
    assert "not understood: exports/notes.txt" in told
    assert "mend it and type: ghost extract exports\n" in told


@pytest.mark.usefixtures("home")
def test_an_export_whose_dates_fit_two_orders_names_the_flag_that_reads_it(capsys: Capture) -> None:
    lines = [f"0{day}/03/2022, 10:00 - {name}: ça va" for day in (1, 2, 5) for name in ("Zoé", "Noa")]
    Path("exports/WhatsApp Chat with Zoé.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert cli.main(start()) == 0
    again = capsys.readouterr().out.partition("mend it and type: ")[2].partition(" (day first)")[0]
    assert again == "ghost extract exports --date-order dmy"
    assert cli.main(shlex.split(again)[1:]) == 0


@pytest.mark.usefixtures("home")
def test_without_a_terminal_the_error_lists_who_can_be_meant(capsys: Capture) -> None:
    assert cli.main(start("--exports")) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "--me NAME" in error
    assert all(name in error for name in ("Noa", "Malo", "'Bea, the younger'"))


@pytest.mark.usefixtures("home")
def test_exports_without_a_message_are_asked_for_again(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    Path("empty").mkdir()
    assert cli.main(start(exports="empty")) == 1
    assert answer(monkeypatch, "exports", "^C") == 128 + signal.SIGINT
    assert "Where are your exports?" in capsys.readouterr().out
    assert read("config/start.json")["exports"] == ["exports"]


NEW = ["--exports", "new", "--home", "nowhere", "--repo", "nora/ghost"]


@pytest.mark.parametrize("me", [["--me", "Nora"], []])
def test_names_that_are_not_in_new_exports_leave_everything_as_it_was_but_the_valid_flags(
    me: list[str], home: Path, capsys: Capture
) -> None:
    assert cli.main(start()) == 0
    before = {path: path.read_bytes() for path in home.glob("data/cleaned/**/*") if path.is_file()}
    kept = read("config/start.json")
    Path("new").mkdir()
    chat = "".join(f"17/03/2022, 10:0{minute} - Zoé: salut\n" for minute in range(6))
    Path("new/WhatsApp Chat with Zoé.txt").write_text(chat, encoding="utf-8")
    assert cli.main(["start", *NEW, *me]) == 1
    told = capsys.readouterr().err
    assert ("--me 'Nora' sent none" if me else "none of user_identifiers (Noa) sent a message") in told
    assert "this run only" not in told  # what `ghost start` is told is kept
    assert {path: path.read_bytes() for path in home.glob("data/cleaned/**/*") if path.is_file()} == before
    assert [path.name for path in Path("data").iterdir() if path.name.startswith(".")] == []
    assert read("config/start.json") == kept | {"home": "nowhere", "repo": "nora/ghost"}
    assert cli.main(["start"]) == 0


@pytest.mark.usefixtures("home")
def test_exports_without_a_message_do_not_replace_those_that_were_read() -> None:
    assert cli.main(start()) == 0
    Path("empty").mkdir()
    assert cli.main(start(exports="empty")) == 1
    assert read("config/start.json")["exports"] == ["exports"]
    assert cli.main(["start"]) == 0


@pytest.mark.usefixtures("home")
def test_flags_that_need_no_chats_are_kept_when_the_names_are_wrong() -> None:
    assert cli.main(start(me="Nora")) == 1
    assert [read("config/start.json")[key] for key in ("base", "home", "repo")] == ["qwen3-4b", "server", "noa/ghost"]
    assert cli.main(start("--me", "--others-agree")) == 0


@pytest.mark.usefixtures("home")
def test_a_wrong_flag_is_refused_before_a_chat_is_read_and_the_valid_ones_are_kept() -> None:
    for wrong, value in {"base": "qwen3", "repo": "ghost"}.items():
        Path("config/start.json").unlink(missing_ok=True)
        assert cli.main(start(**{wrong: value})) in (1, 2)
        right = {"base": "qwen3-4b", "home": "server", "repo": "noa/ghost"} | {wrong: ""}
        assert {key: read("config/start.json")[key] for key in right} == right
        assert not Path("data/cleaned").exists()


@pytest.mark.usefixtures("home")
def test_consent_is_asked_for_everybody_by_name(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    people = [f"Person {number}" for number in range(20)]
    chat = "".join(f"20/03/2022, 10:{minute:02} - {name}: salut\n" for minute, name in enumerate([*people, "Noa"]))
    Path("exports/WhatsApp Chat with Club.txt").write_text(chat, encoding="utf-8")
    assert answer(monkeypatch, "exports", "Noa") == 128 + signal.SIGINT
    question = capsys.readouterr().out.partition("Did all of them agree")[2]
    assert all(name in question for name in [*people, "Malo", "Bea, the younger"])
    assert answer(monkeypatch, "22") == 128 + signal.SIGINT
    assert len(read("config/user_config.json")["exclude_people"]) == 1


def test_consent_is_asked_again_for_those_who_are_new_and_only_for_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert cli.main(start()) == 0
    before = {path: path.read_bytes() for path in home.glob("data/cleaned/**/*") if path.is_file()}
    chat = "".join(f"20/03/2022, 10:{m:02} - {name}: salut\n" for m in range(9) for name in ("Zoé", "Noa", "Ari"))
    Path("exports/WhatsApp Chat with Zoé.txt").write_text(chat, encoding="utf-8")

    assert cli.main(["start", "--exports", "exports", "exports/WhatsApp Chat with Zoé.txt"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert [name for name in ("Noa", "Malo", "Zoé", "Ari") if name in error] == ["Zoé", "Ari"]
    assert {path: path.read_bytes() for path in home.glob("data/cleaned/**/*") if path.is_file()} == before
    assert read("config/start.json")["exports"] == ["exports"]

    assert cli.main(["extract", "exports"]) == 0  # the same people, by another way
    capsys.readouterr()
    assert answer(monkeypatch, "Zoé") == 0
    question = capsys.readouterr().out.partition("These people are new")[2].partition("Type `yes`")[0]
    assert [name for name in ("Noa", "Malo", "Zoé", "Ari") if name in question] == ["Zoé", "Ari"]
    assert read("config/user_config.json")["exclude_people"] == ["Zoé"]
    assert read("config/start.json")["agreed"] == ["Ari", "Bea, the younger", "Malo"]
    assert cli.main(["start"]) == 0


@pytest.mark.usefixtures("home")
def test_a_number_that_is_not_in_the_list_is_refused_as_one(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    answer(monkeypatch, "exports", "99", "Noa", "1, 99", "yes", "99")
    told = capsys.readouterr().out
    for last in (3, 2, 6):  # who are you, who does not agree, which base
        assert f"there is no number 99: the list goes from 1 to {last}" in told
    assert read("config/user_config.json") == {"user_identifiers": ["Noa"], "exclude_people": []}


@pytest.mark.parametrize(("base", "quantised"), [("smollm2-135m", False), ("qwen3-4b", True)])
@pytest.mark.parametrize("rate", [1.0, 1e14])
@pytest.mark.usefixtures("home")
def test_a_small_base_is_trained_on_whole_weights(
    base: str, quantised: bool, rate: float, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "measure_core", lambda: rate)
    assert cli.main(start(base=base)) == 0
    lines = commands(capsys.readouterr().out)
    (train,) = (number for number, line in enumerate(lines) if line.startswith("ghost train"))
    if lines[train - 1].startswith("ghost init && "):
        assert cli.main(["init"]) == 0
        subprocess.run(["bash", "-c", lines[train - 1].removeprefix("ghost init && ")], check=True)
    config = training_config.load()
    assert (config.load_in_4bit, config.adapter) == ((True, "qlora") if quantised else (False, "lora"))
    assert cli.main(start(base=base)) == 0
    assert "sed -i" not in capsys.readouterr().out.partition("Now read ")[2] or quantised
