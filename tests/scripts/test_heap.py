import subprocess
import sys

import pytest

# Blocks of 8 MB, after one of 30 MB has taught malloc to keep such; what stays behind each would keep its gap open.
PROGRAM = """
import sys
from scripts.heap import give_back_large_blocks
if sys.argv[1] == "yes":
    give_back_large_blocks()
bytearray(30_000_000)
large, small = [], []
for _ in range(20):
    large.append(bytearray(8_000_000))
    large[-1][::4_000] = bytes(2_000)  # touched, page by page
    small.append(bytearray(4_000))
large.clear()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def resident(wanted: str) -> int:
    """Bytes that the process holds after it has freed its large blocks."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, wanted], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout) * 1024


@pytest.mark.skipif("not sys.platform.startswith('linux')", reason="malloc is told what to do on Linux only")
def test_large_blocks_go_back_to_the_system() -> None:
    assert resident("yes") < 50_000_000 < 100_000_000 < resident("no")
