"""The web pages in a real Chromium."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, Page, async_playwright, expect

from function_builder.contract.builds import BuildInfo, BuildState, new_id
from function_builder.contract.findings import BuildWarning, SourceExcerpt
from function_builder.contract.log import StepText
from function_builder.contract.web import web_token
from function_builder.engine import NatsServer
from function_builder.oidc import fetch, issuers
from function_builder.server.app import create_app
from function_builder.server.service import Service
from tests.support.builders import running_builder
from tests.support.gate import gate
from tests.support.issuer import running_issuer
from tests.support.memory_builds import MemoryBuilds
from tests.support.queued import QueueClient, tiny
from tests.support.requests import SECRET, make_tar
from tests.support.services import idle_service

# One Chromium serves all tests, in one loop: its start takes seconds of processor time.
pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

MILLISECONDS = 60_000
"""How long a page may take to show what it is to show."""

CANARY = "<img src=x onerror=\"document.body.dataset.hacked='1'\"><script>hacked()</script>"

expect.set_options(timeout=MILLISECONDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    # Chromium's sandbox refuses root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=arguments, timeout=MILLISECONDS
        )
        yield browser
        await browser.close()


@contextlib.asynccontextmanager
async def new_page(chromium: Browser, **options: object) -> AsyncIterator[Page]:
    """A page without cookies; an error of a script, or of the content policy, fails the test."""
    faults: list[str] = []
    context = await chromium.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(MILLISECONDS)
    page = await context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    yield page
    await context.close()
    assert not faults


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=100, verify=False) as client:
        yield client


@pytest.fixture
def builds() -> MemoryBuilds:
    return MemoryBuilds()


@pytest_asyncio.fixture(loop_scope="module")
async def url(tmp_path, builds) -> AsyncIterator[str]:
    """A server whose builds are in memory, as a test makes them."""
    service = idle_service(tmp_path, web=True)
    service.builds = builds
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with serving(service, listening) as served:
            yield f"{served}/web/builds"


@contextlib.asynccontextmanager
async def serving(service: Service, listening: socket.socket) -> AsyncIterator[str]:
    """A service that answers on a socket; its URL."""
    config = uvicorn.Config(
        create_app(service), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def kept(
    builds: MemoryBuilds, image: str = "r/f:1", *, created: float = 0.0, tenant: str = "default"
) -> str:
    """A build that runs."""
    now = created or time.time()
    info = BuildInfo(
        id=new_id(now),
        state=BuildState.RUNNING,
        created=now,
        started=now,
        image=image,
        repository=image,
        requester=image,
    )
    builds.record_start(tenant, info)
    return info.id


async def test_a_user_of_a_tenant_signs_in_at_an_issuer_and_with_a_token(
    tmp_path, builds, chromium, monkeypatch
):
    """The issuer is another site: `localhost` beside 127.0.0.1."""
    # On a busy machine an issuer that runs here takes longer than 1 s.
    monkeypatch.setattr(fetch, "ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(issuers, "WAIT_SECONDS", 60.0)
    kept(builds, "r/acme:1", tenant="acme")
    kept(builds, "r/ours:1")
    with (
        running_issuer("localhost") as issuer,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        issuer.allow_sign_in("builder", groups=["acme"])
        trust = f"{{issuer: {issuer.url}, audience: builder, claims: {{groups: acme}}}}"
        (tmp_path / "tenants.yaml").write_text(f"tenants: {{acme: {{oidc: [{trust}]}}}}")
        (tmp_path / "payload-secret").write_text(SECRET)
        service = idle_service(
            tmp_path,
            disable_hmac=False,
            secret_mount_path=tmp_path,
            tenants_file=str(tmp_path / "tenants.yaml"),
            web=True,
            web_url=f"http://127.0.0.1:{listening.getsockname()[1]}",
            web_oidc_issuer=issuer.url,
            web_oidc_client_id="builder",
        )
        service.builds = builds
        async with serving(service, listening) as url, new_page(chromium) as page:
            await page.goto(f"{url}/web/sign-in")
            await page.get_by_role("link", name="Sign in with your organization").click()
            await expect(page).to_have_url(f"{url}/web/builds")
            await expect(page.get_by_role("link", name="r/acme:1")).to_be_visible()
            assert await page.get_by_text("r/ours:1").count() == 0
            await page.get_by_role("button", name="Sign out").click()
            await page.wait_for_url("**/web/sign-in")
            token = issuer.token(aud="builder", groups="acme")
            await page.get_by_label("Or paste").fill(token)
            await page.get_by_role("button", name="Sign in").click()
            await expect(page.get_by_role("link", name="r/acme:1")).to_be_visible()
            cookies = await page.context.cookies()
            assert [each["httpOnly"] for each in cookies] == [True]
            assert token not in str(cookies)


async def test_builds_of_a_real_builder_are_watched_cancelled_and_built_again(
    tmp_path, buildkitd, http, chromium
):
    settings = {"web": "true", "max_inflight": "1"}
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as nats, gate() as steps:
        settings |= {"nats_url": nats.url, "store_url": (tmp_path / "store").as_uri()}
        async with (
            running_builder(tmp_path / "b", buildkitd, **settings) as builder,
            new_page(chromium) as page,
        ):
            client = QueueClient(http, builder.url)
            token = web_token(SECRET.encode(), "default", int(time.time()) + 600)
            await page.goto(f"{builder.url}/web/sign-in?token={token}")
            await expect(page).to_have_url(f"{builder.url}/web/builds")
            await expect(page.get_by_text("No builds yet.")).to_be_visible()

            # The list shows a build that comes; its page follows it to its end.
            first = await client.submitted(steps.body("one"))
            await expect(page.locator(f"#b{first}")).to_contain_text("running")
            await page.locator(f"#b{first} a").click()
            await steps.reached("one")
            await expect(page.locator("#steps li.started")).to_contain_text("nc 127.0.0.1")
            second = await client.submitted(steps.body("two"))
            await steps.let("one")
            await expect(page.locator("h1 .state")).to_have_text("success")
            await expect(page.locator(".line", has_text="through-one")).to_be_visible()
            await expect(page.locator("#steps li.completed", has_text="nc 127")).to_be_visible()

            # A build that runs is cancelled by its button.
            await steps.reached("two")
            await page.goto(f"{builder.url}/web/builds/{second}")
            await page.get_by_role("button", name="Cancel").click()
            await expect(page.locator("h1 .state")).to_have_text("cancelled")
            assert (await client.get(second))["status"] == "cancelled"

            # What was built is built again, as another build.
            await page.goto(f"{builder.url}/web/builds/{first}")
            steps.open()
            await page.get_by_role("button", name="Build again").click()
            await expect(page.locator("h1 .state")).to_have_text("success")
            await expect(page.get_by_role("link", name=first)).to_be_visible()

            # Of a build that fails, the line of the Dockerfile is shown.
            failing = make_tar(
                {"Dockerfile": "FROM busybox\nRUN echo no >&2; exit 3\n"}, {"skipPush": True}
            )
            failed = await client.submitted(failing)
            await page.goto(f"{builder.url}/web/builds/{failed}")
            await expect(page.locator("h1 .state")).to_have_text("failed")
            await expect(page.locator(".source")).to_contain_text(">>> RUN echo no >&2; exit 3")
            await expect(page.locator("#steps li.failed")).to_contain_text("failed")

            # The operator sees the cache of the real BuildKit, and prunes one kind of it.
            await page.get_by_role("link", name="BuildKits").click()
            await expect(page.locator(".state.success")).to_have_text("reachable")
            await page.set_viewport_size({"width": 320, "height": 600})
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320
            await page.get_by_role("link", name="Prune source.local …").click()
            await page.get_by_role("button", name="Prune").click()
            await expect(page.get_by_role("status")).to_contain_text("records were removed from")

            await page.get_by_role("button", name="Sign out").click()
            await page.wait_for_url("**/web/sign-in")
            answer = await page.request.get(f"{builder.url}/web/builds")
            assert answer.status == 401
            await client.until(await client.submitted(tiny()), "success")


async def test_nothing_that_a_tenant_writes_becomes_markup(url, builds, chromium):
    build_id = kept(builds, CANARY)
    lines = [f"v: 2026-01-02T03:04:05Z {CANARY}", f"v: 2026-01-02T03:04:05Z {CANARY} 1.00s"]
    steps = ["1 started", "1 completed"]
    log = [*map(StepText, lines, steps), StepText(f"\x1b[31m{CANARY}\x1b[0m", "1"), CANARY]
    builds.write(build_id, log)
    builds.end(
        build_id,
        BuildState.FAILED,
        error=CANARY,
        step=CANARY,
        source=SourceExcerpt(CANARY, 1, 1, CANARY),
        warnings=[BuildWarning(message=CANARY, rule=CANARY, url=CANARY, file=CANARY, line=1)],
    )
    async with new_page(chromium) as page:
        for path in ("", f"?repository={CANARY}", f"/{build_id}"):
            await page.goto(url + path)
            await expect(page.locator("main")).to_contain_text("hacked()")
            assert await page.locator("main img, main script").count() == 0
        await expect(page.locator("#log[data-complete]")).to_contain_text(CANARY)
        await expect(page.locator("#log .line .ansi1")).to_have_text(CANARY)
        await expect(page.locator("#steps a")).to_have_text(CANARY)
        assert await page.locator("main img, main script").count() == 0
        assert await page.evaluate("document.body.dataset.hacked") is None


async def test_a_log_of_a_hundred_thousand_lines_is_shown_and_searched(url, builds, chromium):
    build_id = kept(builds)
    builds.write(build_id, [StepText("[1/1] RUN seq 100000", "1 started")])
    builds.write(build_id, [StepText(f"the line {number}", "1") for number in range(100_000)])
    builds.end(build_id, BuildState.SUCCESS)
    async with new_page(chromium) as page:
        # How long the page cannot react while the log comes.
        await page.add_init_script(
            """let last = performance.now(); window.longest = 0;
            setInterval(() => {
              const now = performance.now();
              window.longest = Math.max(window.longest, now - last);
              last = now;
            }, 10);"""
        )
        await page.goto(f"{url}/{build_id}#L90002")
        await page.locator("#log[data-complete]").wait_for(state="attached")
        assert await page.locator(".line").count() == 100_000
        assert await page.evaluate("window.longest") < 10_000
        await expect(page.locator("#L90002.target")).to_be_in_viewport()
        await page.get_by_role("searchbox").fill("line 4321")
        await expect(page.locator("#found")).to_have_text("1 of 11 lines")
        await expect(page.locator("#L4323.current")).to_be_in_viewport()
        await page.get_by_role("searchbox").press("Enter")
        await expect(page.locator("#L43212.current")).to_be_in_viewport()


async def test_ten_thousand_builds_are_listed_by_pages_with_the_keyboard(url, builds, chromium):
    now = time.time()
    for number in range(10_000):
        kept(builds, f"r/f{number}:1", created=now - number)
    async with new_page(chromium, viewport={"width": 390, "height": 800}) as page:
        await page.goto(url)
        await expect(page.locator("tbody tr")).to_have_count(50)
        # Nothing is wider than a phone.
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.get_by_role("link", name="Older").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("tbody tr").first).to_contain_text("r/f50:1")
        await page.get_by_label("Repository").fill("r/f7777:1")
        await page.keyboard.press("Enter")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.locator("tbody a").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_contain_text("r/f7777:1")


async def test_without_scripts_there_is_all_there_is_to_read(url, builds, chromium):
    build_id = kept(builds)
    builds.write(build_id, ["one", "two"])
    builds.end(build_id, BuildState.FAILED, error="it is broken")
    async with new_page(chromium, java_script_enabled=False) as page:
        await page.goto(url)
        await page.get_by_role("link", name="r/f:1").click()
        await expect(page.locator(".fault")).to_have_text("it is broken")
        await page.get_by_role("link", name="The log as text").click()
        await expect(page.locator("body")).to_have_text("one\ntwo\n")


async def test_a_log_goes_on_after_a_lost_connection(url, builds, chromium):
    build_id = kept(builds)
    builds.heartbeat = 0.1
    builds.write(build_id, ["before"])
    async with new_page(chromium) as page:
        cut = 0

        async def lose(route):
            nonlocal cut
            cut += 1
            if cut == 1:
                line = b'{"log":["before"],"status":"in_progress","duration":1,"after":1}\n'
                await route.fulfill(body=line)
            else:
                await route.continue_()

        await page.route("**/log?after=*", lose)
        await page.goto(f"{url}/{build_id}")
        await expect(page.locator(".line")).to_have_text(["before"])
        builds.write(build_id, ["after"])
        builds.end(build_id, BuildState.SUCCESS)
        await expect(page.locator(".line")).to_have_text(["before", "after"])
        await expect(page.locator("h1 .state")).to_have_text("success")
        assert cut == 2
