"""The whole line with the network blocked, and what the README tells a person to type."""

import io
import re
import shlex
from functools import partial
from pathlib import Path

import pytest

from ghost import cli
from ghost.demo import demo, starter
from ghost.evaluation import memorisation

ROOT = Path(__file__).parents[1]


def test_every_verb_passes_without_a_network(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`demo` calls extract, prepare, train, merge and serve; push and pull want a network. Sockets reach this machine
    only: see tests/offline."""
    asked = tmp_path / "asked.txt"
    monkeypatch.setenv("LOOPBACK_ONLY_LOG", str(asked))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(demo, "MESSAGES", 900)  # ten held-out replies, which evaluate asks for
    monkeypatch.setattr(starter, "starter_base", lambda cache: tiny_base)
    out = tmp_path / "demo"
    (out / "adapter.checkpoint").mkdir(parents=True)  # an earlier demo was stopped while it trained
    assert cli.main(["demo", "--invented", "--out", str(out)]) == 0
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        assert cli.main(["init"]) == 0
        asked_for = ["--exports", str(out / "raw"), "--me", "Noa", "--others-agree", "--home", "nowhere"]
        assert cli.main(["start", *asked_for, "--base", str(tiny_base)]) == 0
    told = capsys.readouterr().out
    assert all(f"── {stage} ─" in told for stage in ("sample", "extract", "prepare", "train", "merge", "serve"))
    assert re.search(r"loss +\d+\.\d+ → \d+\.\d+", told)

    merged = str(out / "merged")
    held_out = str(out / "processed" / "val.jsonl")
    plan = ["--config", "config/demo_config.yaml", "--data", str(out / "processed"), "--base", str(tiny_base)]
    assert cli.main(["bases"]) == 0
    assert cli.main(["estimate", *plan]) == 0
    assert cli.main(["distill", merged, "--layers", "1", *plan[:4], "--out", str(out / "smaller")]) == 0
    assert cli.main(["check", merged]) == 0
    assert cli.main(["try", merged, "--held-out", held_out, "--limit", "2"]) == 0
    assert cli.main(["export", merged, "--gguf", "f16", "--out", str(out / "gguf")]) == 0
    assert cli.main(["preflight", "--no-weights"]) == 0
    a_few = partial(memorisation.sample_long_replies, count=4)  # a hundred take their time
    monkeypatch.setattr(memorisation, "sample_long_replies", a_few)
    page = ["--out", str(out / "report"), "--turns", "4"]
    assert cli.main(["evaluate", merged, "--val", held_out, "--base", str(tiny_base), *page]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hey\n")))
    assert cli.main(["chat", merged]) == 0
    assert not asked.exists(), asked.read_text()  # nothing even tried, in this process or in the server's
    by_the_demo = {"extract", "prepare", "train", "merge", "serve", "demo"}
    called = by_the_demo | {
        "init",
        "start",
        "bases",
        "estimate",
        "distill",
        "check",
        "try",
        "export",
        "preflight",
        "evaluate",
        "chat",
    }
    assert called | {"push", "pull", "release", "bot"} == set(cli.VERBS)  # those four need a network


def lines_of_the_readme() -> list[str]:
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    blocks = re.findall(r"^```\w*\n(.*?)^```$", "\n".join(pages), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("ghost ")]


@pytest.mark.parametrize("line", lines_of_the_readme())
def test_the_readme_types_what_ghost_understands(line: str) -> None:
    _, *arguments = shlex.split(line, comments=True)
    args = cli.build_parser(arguments[0]).parse_args(arguments)
    assert args.verb == arguments[0]
