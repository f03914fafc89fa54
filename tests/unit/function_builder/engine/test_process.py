import asyncio
import os
import signal
import sys
import time
from functools import partial

import pytest
import uvloop

from function_builder.engine.errors import StartFailed
from function_builder.engine.process import Program, SupervisedProcess, child_environment
from tests.support import is_over, running, until


async def always():
    return True


def python(code, **options):
    settings = {"ready": always, "prepare": lambda: None, "environment": {}, **options}
    return Program(name="prog", argv=(sys.executable, "-c", code), **settings)


def test_children_see_no_secret_of_ours(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("GOGC", "400")
    environment = child_environment({"OWN": "1"})
    assert "s3cret" not in environment.values()
    assert environment["https_proxy"] == "http://proxy:3128"
    assert environment["GOGC"] == "400"
    assert environment["OWN"] == "1"
    assert "/usr/sbin" in environment["PATH"].split(":")


async def test_a_program_that_ends_instead_of_getting_ready_is_quoted(tmp_path):
    async def never():
        return False

    code = "import sys; print('prog: no luck\\n\\tat line 7', file=sys.stderr); sys.exit(3)"
    process = SupervisedProcess(python(code, ready=never, log=tmp_path / "log"))
    with pytest.raises(StartFailed, match=r"^prog ended with exit code 3: no luck \(see /"):
        await process.start()


async def test_a_program_that_stays_silent_is_ended(tmp_path):
    async def never():
        return False

    program = python(
        "import time; time.sleep(100)", ready=never, start_timeout=0.2, log=tmp_path / "log"
    )
    process = SupervisedProcess(program)
    with pytest.raises(StartFailed, match=r"^prog was not ready within 0.2 s: no word"):
        await process.start()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_a_program_that_dies_is_started_again_and_again(tmp_path):
    process = SupervisedProcess(python("import time; time.sleep(100)"))
    await process.start()
    try:
        for _ in range(2):
            os.kill(process.pid, signal.SIGKILL)
            await until(partial(has_another_pid, process, process.pid))
    finally:
        await process.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def has_another_pid(process, before):
    return process.pid != before


async def test_a_program_deaf_to_sigterm_is_killed_with_all_that_it_started(tmp_path):
    told = tmp_path / "grandchild"
    code = (
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = os.fork()\nif child: pathlib.Path({str(told)!r}).write_text(str(child))\n"
        "time.sleep(100)\n"
    )

    async def started():
        return told.exists() and told.read_text() != ""

    process = SupervisedProcess(python(code, ready=started, stop_timeout=0.2))
    await process.start()
    async with asyncio.timeout(60):
        await process.stop()
    await until(lambda: is_over(int(told.read_text())))


def after(turns, callback):
    """Call it after so many turns of the loop; 0: now."""
    if turns:
        asyncio.get_running_loop().call_soon(after, turns - 1, callback)
    else:
        callback()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize(("turns", "times"), [*((turn, 1) for turn in range(6)), (0, 4)])
def test_a_start_that_is_cancelled_leaves_none_of_what_it_started(
    tmp_path, run, piped, turns, times
):
    """At each turn of the loop, also before it has told us of the process; also cancelled again."""
    told = tmp_path / "grandchild"
    code = f"sleep 100 & echo $! >{told}.part; mv {told}.part {told}; wait"

    async def never():
        return False

    async def start_and_cancel():
        loop = asyncio.get_running_loop()

        def cancel():
            deadline = time.monotonic() + 60
            while running(code) and not told.exists() and time.monotonic() < deadline:
                time.sleep(0.002)
            for turn in range(times):
                after(turn, starting.cancel)

        def prepare():
            loop.call_soon(after, turns, cancel)

        program = Program(
            name="prog",
            argv=("sh", "-c", code),
            ready=never,
            prepare=prepare,
            environment={},
            log=None if piped else tmp_path / "log",
        )
        starting = asyncio.create_task(SupervisedProcess(program).start())
        with pytest.raises(asyncio.CancelledError):
            await starting
        # Cancelled again, it does not wait for the end.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        # The kernel has been asked to end them all; nothing waits for those below the program.
        await until(lambda: running(code) == [])
        if told.exists():
            await until(lambda: is_over(int(told.read_text())))

    run(start_and_cancel())


async def test_output_without_a_file_goes_into_our_log_and_into_the_error():
    async def never():
        return False

    code = "import sys; print('one'); print('prog: no luck', file=sys.stderr); sys.exit(3)"
    process = SupervisedProcess(python(code, ready=never))
    with pytest.raises(StartFailed) as failed:
        await process.start()
    assert str(failed.value) == "prog ended with exit code 3: no luck (its output is above)"
