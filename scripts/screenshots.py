"""The pictures of the web pages under docs/: `make screenshots`."""

import asyncio
import os
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright

from function_builder.client import AsyncClient

DOCS: Final = Path(__file__).parents[1] / "docs"

WORKS: Final = """\
FROM busybox AS assets
WORKDIR /assets
COPY minify.sh ./
RUN ./minify.sh

FROM busybox AS handler
WORKDIR /src
COPY compile.sh handler.sh ./
RUN ./compile.sh handler

FROM busybox
COPY --from=assets /assets /assets
COPY --from=handler /src/handler.sh /home/app/
CMD ["/home/app/handler.sh"]
"""
FAILS: Final = WORKS.replace("compile.sh handler\n", "compile.sh checkout\n")
SCRIPTS: Final = {
    "handler.sh": "#!/bin/sh\necho Hello, $(cat)!\n",
    "minify.sh": "#!/bin/sh\nfor name in logo page style; do sleep 1; echo $name: minified; done\n",
    "compile.sh": "#!/bin/sh\n"
    """\
for part in parse resize encode; do
  sleep 1
  printf '\\033[32mok\\033[0m  compiled %s\\n' $part
done
if [ $1 = checkout ]; then
  printf '\\033[31mcheckout.sh:12: undefined: total\\033[0m\\n' >&2
  exit 2
fi
""",
}
RUNS: Final = "FROM busybox\nRUN for n in 1 2 3 4; do echo part $n; sleep 1; done; sleep 60\n"


def free_address() -> str:
    """An address on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


async def main() -> None:
    """Start `up`, build, and take the pictures."""
    with tempfile.TemporaryDirectory() as state:
        builder, registry = free_address(), free_address()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "function_builder", "up", "--state-dir", state),
            *("--listen", builder, "--registry-listen", registry),
            *("--metrics-listen", free_address()),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(120):
                link = None
                while link is None:
                    line = (await process.stdout.readline()).decode()
                    assert line, "up ended"
                    link = re.search(r"http://\S+token=\S+", line)
            secret = (Path(state) / "payload-secret").read_bytes().strip()
            ids = await build(f"http://{builder}", registry, secret)
            await take(f"http://{builder}/web/builds", link[0], ids)
        finally:
            process.terminate()
            await process.communicate()


async def build(url: str, registry: str, secret: bytes) -> dict[str, str]:
    """Have builds that show something; returns their ids."""
    ids = {}
    async with AsyncClient(url, payload_secret=secret) as client:
        for name, dockerfile in (("thumbnail", WORKS), ("checkout", FAILS), ("invoice", RUNS)):
            files = {"Dockerfile": dockerfile} | SCRIPTS
            handle = await client.submit(files=files, image=f"{registry}/acme/{name}:1.4.2")
            ids[name] = handle.id
            if name != "invoice":
                await handle.wait()
    await asyncio.sleep(5)
    return ids


async def take(url: str, link: str, ids: dict[str, str]) -> None:
    """Take the pictures."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=arguments
        )
        await picture(browser, link, url, "web-list.png", height=420)
        await picture(browser, link, f"{url}/{ids['checkout']}", "web-failed.png", height=1000)
        await picture(browser, link, f"{url}/{ids['thumbnail']}", "web-dark.png", dark=True)
        await picture(browser, link, f"{url}/{ids['invoice']}", "web-phone.png", width=390)
        await browser.close()


async def picture(
    browser: Browser,
    link: str,
    url: str,
    name: str,
    *,
    dark: bool = False,
    width: int = 1100,
    height: int = 900,
) -> None:
    """One picture, of a browser that has signed in."""
    context = await browser.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}
    )
    page = await context.new_page()
    await page.goto(link)
    await page.goto(url)
    # The log comes, and a page that follows it scrolls.
    await page.wait_for_timeout(1500)
    await page.evaluate("window.scrollTo(0, 0)")
    await page.screenshot(path=DOCS / name)
    await context.close()


asyncio.run(main())
