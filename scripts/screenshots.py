"""The pictures under docs/ of the web pages and of the command: `make screenshots`."""

import asyncio
import os
import re
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright

from function_builder.client import AsyncClient
from scripts import terminal_picture

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


def free_address(port: int = 0) -> str:
    """An address on the loopback interface, with this port if it is free."""
    try:
        with socket.create_server(("127.0.0.1", port)) as listening:
            return f"127.0.0.1:{listening.getsockname()[1]}"
    except OSError:
        return free_address()


async def main() -> None:
    """Start `up`, build, and take the pictures."""
    with tempfile.TemporaryDirectory() as state:
        builder, registry = free_address(8080), free_address(5000)
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
            folders = write_folders(Path(state))
            ids = await build(f"http://{builder}", registry, secret, folders)
            shown = await type_build(Path(state), f"http://{builder}", registry, folders)
            await take(f"http://{builder}/web", link[0], ids, shown)
        finally:
            process.terminate()
            await process.communicate()


def write_folders(state: Path) -> dict[str, Path]:
    """The contexts of the builds."""
    folders = {}
    for name, dockerfile in (("thumbnail", WORKS), ("checkout", FAILS), ("invoice", RUNS)):
        folders[name] = folder = state / name
        folder.mkdir()
        for file, content in ({"Dockerfile": dockerfile} | SCRIPTS).items():
            (folder / file).write_text(content)
            (folder / file).chmod(0o755)
    return folders


async def build(
    url: str, registry: str, secret: bytes, folders: Mapping[str, Path]
) -> dict[str, str]:
    """Have builds that show something; returns their ids."""
    ids = {}
    async with AsyncClient(url, payload_secret=secret) as client:
        for name, folder in folders.items():
            handle = await client.submit(folder, image=f"{registry}/acme/{name}:1.4.2")
            ids[name] = handle.id
            if name != "invoice":
                await handle.wait()
    await asyncio.sleep(5)
    return ids


async def type_build(state: Path, url: str, registry: str, folders: Mapping[str, Path]) -> str:
    """A page with what the command shows of a build that fails."""
    folder = folders["checkout"]
    image = f"{registry}/acme/checkout:1.4.3"
    environment = {
        "OPENFAAS_REMOTE_BUILDER": url,
        "OPENFAAS_PAYLOAD_SECRET": str(state / "payload-secret"),
    }
    command = [sys.executable, "-m", "function_builder", "build", str(folder), "--image", image]
    written = await terminal_picture.run(command, environment)
    return terminal_picture.page(f"function-builder build checkout --image {image}", written)


async def take(url: str, link: str, ids: dict[str, str], shown: str) -> None:
    """Take the pictures."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=arguments
        )
        builds = f"{url}/builds"
        await picture(browser, link, builds, "web-list.png", height=420)
        await picture(browser, link, f"{builds}/{ids['checkout']}", "web-failed.png", height=1000)
        await picture(browser, link, f"{builds}/{ids['thumbnail']}", "web-dark.png", dark=True)
        await picture(browser, link, f"{builds}/{ids['invoice']}", "web-phone.png", width=390)
        await picture(browser, link, f"{url}/buildkits", "web-buildkits.png", height=560)
        page = await browser.new_page()
        await page.set_content(shown)
        await page.locator("body").screenshot(path=DOCS / "terminal.png")
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
