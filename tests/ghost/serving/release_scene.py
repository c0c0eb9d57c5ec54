"""Where `ghost release` is tried: a `cog` that pushes nothing, a server that answers as Replicate does."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ghost import cli
from ghost.serving import release
from ghost.serving.checks import Result
from ghost.serving.client import replicate
from replicate_deployment import ghost_json
from replicate_deployment.tokenization import load_tokenizer
from tests.ghost.serving.fake_replicate import TOKEN, FakeReplicate, running

NAME = "ana/ghost"
CREATE = ("POST", "/v1/predictions")
COG = """#!{python}
import json, os, pathlib, sys, urllib.request
folder = pathlib.Path.cwd()
files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
said = {{"words": sys.argv[1:], "folder": str(folder), "files": files, "coglet": os.environ.get("COGLET_WHEEL")}}
pathlib.Path({log!r}).write_text(json.dumps(said))
print("Pushing image")
if {code}:
    sys.exit({code})
request = urllib.request.Request({url!r}, b"{{}}", {{"Authorization": "Bearer {token}"}})
urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request).read()
"""


class Scene:
    """A build context, a `cog` on PATH, a token, and Replicate."""

    def __init__(self, folder: Path, fake: FakeReplicate, weights: Path) -> None:
        self.folder, self.fake, self.weights = folder, fake, weights
        self.context = folder / "context"
        self.log = folder / "cog.json"

    def cog(self, code: int = 0) -> None:
        program = self.folder / "bin" / "cog"
        url = f"{self.fake.url}/pushed/{NAME}"
        text = COG.format(python=sys.executable, log=str(self.log), code=code, url=url, token=TOKEN)
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)

    def release(self, *flags: str) -> int:
        return cli.main(["release", NAME, "--weights", str(self.weights), *flags])


@pytest.fixture
def scene(tiny_merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.chdir(tmp_path)
    for name in ("bin", "context"):
        (tmp_path / name).mkdir()
    (tmp_path / "context" / "cog.yaml").write_text("build: {}\n", encoding="utf-8")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(release, "locate", lambda: tmp_path / "context")
    monkeypatch.setattr(release, "preflight", lambda folder: iter([Result("files", "ok", "9 there")]))
    monkeypatch.setattr(replicate, "PAUSES", [0.001] * 5)
    monkeypatch.setattr(release, "PAUSES", [0.001] * 5)
    with running() as fake:
        monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
        monkeypatch.setenv("REPLICATE_BASE_URL", f"{fake.url}/v1")
        weights = sure_of_itself(tiny_merged, tmp_path / "merged")
        fake.pieces = ["hey", " et plus"]
        yield Scene(tmp_path, fake, weights)


def sure_of_itself(model: Path, folder: Path) -> Path:
    """The model with a golden block that names one word: random weights find hundreds as likely."""

    shutil.copytree(model, folder, copy_function=os.link)
    facts = json.loads((model / ghost_json.NAME).read_text(encoding="utf-8"))
    word, others = load_tokenizer(model)("hey", add_special_tokens=False)["input_ids"][0], range(10, 14)
    facts["golden"]["next_top5_logprobs"] = [[word, -0.1], *([token, -5.0] for token in others)]
    (folder / ghost_json.NAME).unlink()
    (folder / ghost_json.NAME).write_text(json.dumps(facts), encoding="utf-8")
    return folder
