"""Feed random and mutated files to every platform, guided by coverage; print what breaks.

    pip install atheris
    python -m benchmarks.fuzz_extraction --runs 1000000 --out benchmarks/results/fuzz.md

An input is a file at a path that a platform knows: its first two bytes choose the path and a platform that must read it
whatever it is. `tests/training/extraction/examine.py` says what must hold; a second of processor time is a hang. Some
go through the whole of `ghost extract` as well, some are repeated to 100 kB. What breaks is kept in --work by the place
where it broke, the smallest input of each, and fuzzing goes on; a later call goes on where this one stopped, and drops
what has been mended since.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import io
import json
import mmap
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
SLICE = 50_000  # inputs of one process: what leaks does not add up
LONGEST = 1024  # bytes of an input
REPEATED = 100_000  # bytes of the file that some inputs are repeated to
LIMIT = 1.0  # seconds
EXTRACTED, ENLARGED = 250, 500  # each so many inputs one goes through the whole of `ghost extract`, one is repeated
ROOM = 1 << 20  # bytes in which a process that dies leaves behind how many inputs it took, and the last of them


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="inputs in all, earlier calls included")
    parser.add_argument("--seconds", type=int, help="stop after this time")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "ghost-fuzz"), help="corpus, failures")
    parser.add_argument("--samples", type=Path, default=ROOT.parent / "shared" / "formats", help="more seeds, if there")
    parser.add_argument("--out", type=Path, help="write the record there")
    parser.add_argument("--slice", type=int, help=argparse.SUPPRESS)  # the process that fuzzes
    args = parser.parse_args()
    if args.slice is not None:
        fuzz(args.work, args.runs, args.slice)
    started = time.monotonic()
    for folder in ("corpus", "failures"):
        (args.work / folder).mkdir(parents=True, exist_ok=True)
    state = Path(args.work, "state.json")
    done: dict[str, Any] = {"inputs": 0, "seconds": 0, "slices": 0, "met": {}, "mended": 0}
    if state.exists():
        done |= json.loads(state.read_text())
    if not done["slices"]:
        plant(args.work / "corpus", args.samples)
    while done["inputs"] < args.runs and (args.seconds is None or time.monotonic() - started < args.seconds):
        began, broken = time.monotonic(), set(failures(args.work))
        runs = min(SLICE, args.runs - done["inputs"])
        command = [sys.executable, __file__, "--work", args.work, "--runs", str(runs), "--slice", str(done["slices"])]
        with open(args.work / "log.txt", "wb") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        inputs, last, met = counted(args.work)
        if code:
            trace = Path(args.work, "log.txt").read_text("utf-8", "replace")[-4000:]
            if not inputs:
                print(trace, file=sys.stderr)
                return 1
            keep(args.work, f"exit code {code}", last, trace)
        done["inputs"] += inputs
        done["seconds"] += time.monotonic() - began
        done["slices"] += 1
        done["mended"] += len(broken - set(failures(args.work)))
        done["met"] = dict(Counter(done["met"]) + Counter(met))
        aside = state.with_suffix(".new")
        aside.write_text(json.dumps(done))
        aside.replace(state)
        print(
            f"{done['inputs']:,} inputs, {len(failures(args.work))} kinds of failure, {coverage(args.work)}", flush=True
        )
    record = written(done, args.work)
    print(record)
    if args.out:
        args.out.write_text(record, encoding="utf-8")
    return 1 if failures(args.work) else 0


def plant(corpus: Path, samples: Path) -> None:
    """The first corpus: every seed at its own path, and the smaller of the samples at the likeliest one."""
    from tests.training.extraction.seeds import SEEDS, content

    paths = list(names())
    for number, name in enumerate(SEEDS):
        (corpus / f"seed-{number}").write_bytes(bytes([paths.index(name), 0]) + content(name))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_chat.txt", content("Trip/_chat.txt"))
        archive.writestr("a/result.json", content("telegram/result.json"))
    (corpus / "seed-zip").write_bytes(bytes([paths.index("x.zip"), 0]) + buffer.getvalue())
    if samples.is_dir():
        files = [file for file in sorted(samples.rglob("*")) if file.is_file() and file.stat().st_size < 64 * LONGEST]
        for number, file in enumerate(files):
            alike = [index for index, name in enumerate(paths) if Path(name).suffix == file.suffix] or [0]
            (corpus / f"sample-{number}").write_bytes(
                bytes([alike[number % len(alike)], 0]) + file.read_bytes()[:LONGEST]
            )


def names() -> tuple[str, ...]:
    from tests.training.extraction.seeds import SEEDS

    return (*SEEDS, "x.zip", "x")


def fuzz(work: Path, runs: int, number: int) -> NoReturn:
    """Fuzz `runs` inputs in this process, which ends with them."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed; on Linux, Python 3.11 to 3.13: pip install atheris")
    with atheris.instrument_imports(include=["training.extraction"]):
        import ghost.cli
        import training.extraction.extract
        from tests.training.extraction import examine
    from tests.training.extraction.seeds import BESIDE, content
    from training.extraction.platforms import PLATFORMS
    from training.extraction.source import Source

    class Hang(BaseException):  # no handler of exceptions stops it
        pass

    def hang(_signal: int, frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGVTALRM, hang)
    faulthandler.enable()
    memory = Path("/dev/shm")
    tree = Path(tempfile.mkdtemp(prefix="ghost-fuzz-", dir=memory if memory.is_dir() else None))
    paths = [tree / "in" / name for name in names()]
    for path, name in [*zip(paths, names(), strict=True), *((tree / "in" / name, name) for name in BESIDE)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in BESIDE:
            path.write_bytes(content(name))
    forced = [None, *PLATFORMS]
    met: Counter[str] = Counter()
    counter = open(work / "counter", "w+b")  # noqa: SIM115 - lives as long as the process
    counter.write(bytes(ROOM))
    counter.flush()
    count = mmap.mmap(counter.fileno(), ROOM)
    total = 0

    def one_input(data: bytes) -> None:
        nonlocal total
        total += 1
        struct.pack_into("<QQ", count, 0, total, len(data))
        count[16 : 16 + len(data)] = data
        path, choice, body = paths[data[0] % len(paths) if data else 0], data[1] if len(data) > 1 else 0, data[2:]
        how = ""
        try:
            path.write_bytes(body)
            with limited():
                if path.suffix == ".zip":
                    examine.examine_zip(Source(path))
                    met["zip"] += 1
                else:
                    met[examine.examine(Source(path), forced[choice % len(forced)], "dmy" if choice & 1 else None)] += 1
            if total % EXTRACTED == 0:
                how = " in ghost extract"
                met[f"ghost extract, exit code {extract(path, tree / 'out')}, too"] += 1
            if total % ENLARGED == 1:
                how = " repeated"
                path.write_bytes((body + b"\n") * (REPEATED // (len(body) + 1)))
                with limited():
                    examine.examine(Source(path))
                met["repeated to 100 kB, too"] += 1
        except Hang:
            keep(work, f"hang{how}", data, traceback.format_exc())
        except Exception as error:
            keep(work, f"{type(error).__name__}{how}", data, traceback.format_exc())
        finally:
            path.unlink(missing_ok=True)
            if total == runs:
                Path(work, "met.json").write_text(json.dumps(met))
                shutil.rmtree(tree)

    def extract(path: Path, out: Path) -> int:
        """The whole verb, and whether its report adds up."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = ghost.cli.main(["extract", str(path), "--out", str(out)])
        assert code in (0, 1)
        if (report := out / training.extraction.extract.REPORT).exists():
            add_up(json.loads(report.read_text("utf-8")), out)
            shutil.rmtree(out)
        return code

    options = [
        "-timeout=600",
        f"-artifact_prefix={work}/",
        "-rss_limit_mb=0",
        "-verbosity=1",
        "-print_final_stats=1",
        "-use_value_profile=1",
    ]
    sizes = [f"-max_len={LONGEST}", f"-runs={runs}", f"-seed={number + 1}", f"-dict={dictionary(work)}"]
    atheris.Setup([sys.argv[0], *options, *sizes, str(work / "corpus")], one_input)
    atheris.Fuzz()
    raise AssertionError("the fuzzer ends the process")


@contextlib.contextmanager
def limited() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def add_up(report: dict[str, Any], out: Path) -> None:
    """No record is lost between the files and the conversations."""
    for file in report["files"]:
        assert sum(file["kinds"].values()) == file["records"]
    messages = sum(conversation["messages"] for conversation in report["conversations"])
    assert messages == report["totals"]["message"]
    assert all((out / conversation["file"]).is_file() for conversation in report["conversations"])


def dictionary(work: Path) -> Path:
    """Words that the formats are made of, for the mutations."""
    from tests.training.extraction.seeds import SEEDS, content

    words = {word for name in SEEDS for word in re.findall(rb"[\w@<>./-]{4,30}|[\"{}\[\]:,\t\r\n]+", content(name))}
    path = work / "words.dict"
    quoted = ("".join(rf"\x{byte:02x}" for byte in word) for word in sorted(words))
    path.write_text("".join(f'"{word}"\n' for word in quoted))
    return path


def keep(work: Path, kind: str, data: bytes, trace: str) -> None:
    """Keep an input that broke something, unless a smaller one broke the same place."""
    frames = re.findall(r'File "[^"]*?((?:training|tests|benchmarks)/[^"]+)", line (\d+)', trace)
    frame = frames[0 if "most recent call first" in trace else -1] if frames else ("nowhere", "?")
    place = f"{kind} at {':'.join(frame)}"
    path = work / "failures" / hashlib.sha256(place.encode()).hexdigest()[:12]
    if not path.exists() or path.stat().st_size > len(data):
        path.write_bytes(data)
        name = names()[data[0] % len(names())] if data else ""
        path.with_suffix(".txt").write_text(f"{place}\n{name}\n{data[2:]!r}\n\n{trace}", encoding="utf-8")


def counted(work: Path) -> tuple[int, bytes, dict[str, int]]:
    """How many inputs the last process took, the last of them, and what became of all (empty if it died)."""
    counter, met = work / "counter", work / "met.json"
    left = counter.read_bytes() if counter.exists() else bytes(16)
    inputs, length = struct.unpack_from("<QQ", left)
    outcomes = json.loads(met.read_text()) if met.exists() else {}
    for path in (counter, met):
        path.unlink(missing_ok=True)
    return inputs, left[16 : 16 + length], outcomes


def failures(work: Path) -> list[str]:
    return sorted(path.read_text("utf-8").partition("\n")[0] for path in Path(work, "failures").glob("*.txt"))


def coverage(work: Path) -> str:
    """What libFuzzer last said of it: edges, features and inputs of the corpus."""
    found = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", Path(work, "log.txt").read_text("utf-8", "replace"))
    return "{} branches, {} features, {} inputs in the corpus".format(*found[-1]) if found else "coverage unknown"


def written(done: dict[str, Any], work: Path) -> str:
    inputs, seconds = done["inputs"], done["seconds"]
    broken = failures(work)
    lines = [
        "# Fuzzing of the readers",
        "",
        "```",
        f"python -m benchmarks.fuzz_extraction --runs {inputs}",
        "```",
        "",
        f"{date.today()}, Python {platform.python_version()}, atheris (libFuzzer), one core: **{inputs:,} inputs in"
        f" {seconds:,.0f} s, {len(broken)} kinds of failure**, {done['mended']} more found and mended on the way."
        f" {coverage(work)}.",
        "",
        "A failure is any exception but an ExportError or UsageError with one line, a second of processor time for",
        f"a file of at most {REPEATED // 1000} kB, or a record that is not well made (kind, ISO 8601 timestamp, text",
        "that is UTF-8). Inputs are bytes, mutated and crossed from the smallest file of each platform and from real",
        "samples, at a path that a platform knows; each is recognised and read, and read again as a platform that it",
        "is none of. Some run through the whole of `ghost extract`, whose records, kinds and chats must add up.",
        "",
        "| what became of an input | inputs |",
        "|---|---:|",
        *(f"| {outcome} | {number:,} |" for outcome, number in sorted(done["met"].items(), key=lambda met: -met[1])),
        "",
        *(f"- {place}" for place in broken),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
