"""`function-builder doctor` on this machine, which can build, and where something is taken away."""

import asyncio
import os
import sys
from contextlib import nullcontext

import pytest

from function_builder.engine.tools import search_path
from tests.support.ordinary_user import OrdinaryUser, ordinary_user

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


async def doctor(user, state):
    process = await asyncio.create_subprocess_exec(
        *user.python("-m", "function_builder", "doctor", "--state-dir", state),
        env=user.environment,
        cwd=user.home,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def the_same_user(home):
    return nullcontext(OrdinaryUser(home, (), {"HOME": str(home), "PATH": search_path()}))


@pytest.mark.parametrize("who", ["whoever runs the tests", "an ordinary user"])
async def test_a_build_is_tried_and_nothing_is_left(who, engine_root):
    home = engine_root / "doctor"
    home.mkdir(exist_ok=True)
    with ordinary_user() if who == "an ordinary user" else the_same_user(home) as user:
        before = sorted(user.home.iterdir())
        status, said = await doctor(user, user.home / "later" / "state")
        assert sorted(user.home.iterdir()) == before
    assert "ok    a build           was tried, RUN step included" in said
    assert said.endswith("\nBuilds can run here.\n")
    assert ("/etc/subuid" in said) == (who == "an ordinary user" or os.geteuid() != 0)
    assert status == 0


async def test_a_user_without_ids_gets_the_line_that_mends_it():
    with ordinary_user(ids="somebody:2100000:65536\n") as user:
        if not user.enter:
            pytest.skip("this user's ids are the machine's")
        status, said = await doctor(user, user.home / "state")
    assert "fix: usermod --add-subuids 2165536-2231071 ordinary\n" in said
    assert "a build " not in said
    assert status == 1


async def test_a_wrong_setting_is_an_error(engine_root):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "function_builder", "doctor"),
        env={"listen": "nowhere"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert (process.returncode, said[:22]) == (1, b"error: listen='nowhere")
