import platform
import resource
import subprocess
import sys

import pytest

_CODE = """
import resource, sys, torch
from collabllm.allocator import keep_large_blocks
if sys.argv[1] == "kept":
    assert keep_large_blocks()
for _ in range(20):
    torch.ones(32, 1024, 1024)  # 128 MB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_large_blocks_are_used_again_instead_of_mapped_anew():
    def page_faults(mode):
        command = [sys.executable, "-c", _CODE, mode]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    pages = 128 * 2**20 // resource.getpagesize()
    assert page_faults("plain") - page_faults("kept") > 10 * pages
