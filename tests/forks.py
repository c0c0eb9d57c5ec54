"""A place for what is killed: a process of its own that has torch and its friends imported, which takes seconds.

They are imported once for all tests of a worker, in a server that forks; a fork of the worker itself would inherit the
threads and the locks of all that was tested there before.
"""

import multiprocessing
from collections.abc import Callable

SLOW = ["torch", "bitsandbytes", "peft.tuners.lora.bnb", "transformers.models.mistral.modeling_mistral"]
SLOW += ["transformers.integrations.bitsandbytes", "transformers.optimization"]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(SLOW)


def run(function: Callable[..., object], *arguments: object) -> int:
    """The exit code of a process that calls a module's function; negative for the signal that ended it."""
    process = _server.Process(target=function, args=arguments)
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return code
