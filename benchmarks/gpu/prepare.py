"""Pack what a GPU machine without any network lacks for benchmarks/gpu/run.py.

    python -m benchmarks.gpu.prepare [FOLDER]       # on a machine with pip and the package index

There: Linux on x86-64, Python 3.12, torch 2.11 for CUDA 13, accelerate, pandas, PyYAML, rich, scipy and pytest. Copy
FOLDER there and type `bash FOLDER/run.sh`, again until no row is left.
"""

import argparse
import base64
import csv
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = "3.12"
CUDA = "cuda130"  # as bitsandbytes names the library for it
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LOCKED = ("transformers", "peft", "bitsandbytes", "msgspec")  # as tested; the machine's transformers is too old
LIGER = "liger-kernel==0.8.5"  # a row measures it; nothing of ours uses it
MOST = 20 * 2**20  # bytes of wheels
LEFT_OUT = ("docs/", "notebooks/", "benchmarks/results/", "requirements/")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / ".cache" / "gpu_kit")
    folder: Path = parser.parse_args(argv).folder.resolve()
    if folder.exists() and not (folder / "run.sh").is_file():
        raise SystemExit(f"{folder} exists and is no kit: name another folder")
    with tempfile.TemporaryDirectory() as name:
        kit = Path(name) / "kit"
        (kit / "wheels").mkdir(parents=True)
        download(kit / "wheels", locked((ROOT / "requirements" / "environment.lock").read_text(encoding="utf-8")))
        for wheel in (kit / "wheels").glob("bitsandbytes-*.whl"):
            slim(wheel, CUDA)
        pack_sources(kit / "source.tar.gz")
        shutil.copy(Path(__file__).with_name("kit.sh"), kit / "run.sh")
        size = sum(wheel.stat().st_size for wheel in (kit / "wheels").iterdir())
        for path in sorted(path for path in kit.rglob("*") if path.is_file()):
            print(f"{path.stat().st_size / 2**20:6.2f} MiB  {path.relative_to(kit)}")
        if size > MOST:
            raise SystemExit(f"{size / 2**20:.1f} MiB of wheels; the kit may have {MOST / 2**20:.0f}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kit, folder)
    print(f"{size / 2**20:.1f} MiB of wheels. Copy {folder} to the machine, and there: bash {folder.name}/run.sh")


def locked(lock: str) -> list[str]:
    return [*re.findall(rf"^((?:{'|'.join(LOCKED)})==\S+)", lock, re.MULTILINE), LIGER]


def download(folder: Path, requirements: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", PYTHON, "--dest", str(folder)]
    command += [part for platform in PLATFORMS for part in ("--platform", platform)]
    if subprocess.run([*command, *requirements], check=False).returncode:
        raise SystemExit(f"pip could not download {', '.join(requirements)}: see above")


def slim(wheel: Path, cuda: str) -> None:
    """Leave out bitsandbytes' libraries for other CUDA versions and devices; the CPU's stays, for a rehearsal."""
    kept = {f"bitsandbytes/libbitsandbytes_{kind}.so" for kind in (cuda, "cpu")}
    aside = wheel.with_suffix(".part")
    with zipfile.ZipFile(wheel) as full, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as slimmed:
        names = [name for name in full.namelist() if not name.endswith(".so") or name in kept]
        if missing := kept - set(names):
            raise SystemExit(f"{wheel.name} has no {', '.join(sorted(missing))}: correct CUDA in {Path(__file__).name}")
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = []
        for name in names:
            if name != record:
                content = full.read(name)
                slimmed.writestr(name, content)
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                rows.append((name, f"sha256={digest}", len(content)))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        slimmed.writestr(record, text.getvalue())
    aside.replace(wheel)


def pack_sources(archive: Path) -> None:
    """Those that git tracks, and new ones that it does not ignore, as they are in the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{ROOT}: the sources are those that git lists, and it says: {done.stderr.strip()}")
    with tarfile.open(archive, "w:gz") as tar:
        for name in done.stdout.split("\0"):
            if name and not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
                tar.add(ROOT / name, name)


if __name__ == "__main__":
    main()
