"""The object store: a directory, and a real S3 server."""

import os
import subprocess
import sys

import pytest

from function_builder.contract.reader import Bytes
from function_builder.store import PIECE_BYTES, NotStored, Store, StoreError, StoreFull
from tests.support.object_stores import s3_server

pytestmark = pytest.mark.integration


@pytest.fixture(params=["file", "s3"])
async def store(request, tmp_path, monkeypatch):
    if request.param == "file":
        opened = Store((tmp_path / "a store").as_uri())
        yield opened
        opened.close()
        return
    async with s3_server(tmp_path) as (_, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        opened = Store("s3://builds/below/here")
        yield opened
        opened.close()


async def contents(store, key):
    return [piece async for piece in store.get(key)]


async def test_an_object_is_stored_read_listed_replaced_and_deleted(store):
    await store.check()
    large = os.urandom(2 * PIECE_BYTES + 5)
    await store.put("bodies/acme/1", Bytes(large))
    pieces = await contents(store, "bodies/acme/1")
    assert b"".join(pieces) == large
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES
    await store.put("bodies/acme/2", Bytes(b""))
    await store.put("bodies/acme/2", Bytes(b"second"))
    assert await contents(store, "bodies/acme/2") == [b"second"]
    await store.put("logs/acme/1", Bytes(b"log"))
    listed = [each async for batch in store.list("bodies") for each in batch]
    assert {each.key: each.size for each in listed} == {
        "bodies/acme/1": len(large),
        "bodies/acme/2": 6,
    }
    await store.delete(["bodies/acme/1", "bodies/acme/1", "bodies/acme/none"])
    with pytest.raises(NotStored):
        await contents(store, "bodies/acme/1")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must be file:///"),
        ("/srv/store", "must be file:///"),
        ("http://127.0.0.1/store", "must be file:///"),
        ("file://srv/store", "three slashes"),
        ("file:///proc/none/here", "No such file or directory: /proc/none"),
        ("file:///dev/null/here", "Not a directory: /dev/null/here"),
    ],
)
def test_a_url_that_names_no_store_is_refused_in_one_line(url, says):
    with pytest.raises(StoreError) as refused:
        Store(url)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_server_that_is_not_there_is_an_error_of_one_line(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    store = Store("s3://builds")
    with pytest.raises(StoreError) as refused:
        await store.check()
    assert "\n" not in str(refused.value)
    assert "hidden-secret" not in str(refused.value)
    store.close()


def test_a_full_disk_has_an_error_of_its_own(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    # Its own mount namespace: a test that is killed leaves no mount behind.
    code = f"""
import asyncio
from function_builder.contract.reader import Bytes
from function_builder.store import Store, StoreFull
async def main():
    store = Store({tmp_path.as_uri()!r})
    try:
        await store.put("large", Bytes(bytes(4 << 20)))
    except StoreFull:
        print("full")
asyncio.run(main())
"""
    mounted = f'mount -t tmpfs -o size=1m none {tmp_path} && exec "$@"'
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.stdout == "full\n", ended.stderr
    assert issubclass(StoreFull, StoreError)


def test_an_interpreter_ends_well_while_an_object_is_read(tmp_path):
    code = f"""
import asyncio
from function_builder.contract.reader import Bytes
from function_builder.store import Store
async def main():
    store = Store({tmp_path.as_uri()!r})
    await store.put("large", Bytes(bytes(40 << 20)))
    async for piece in store.get("large"):
        print(len(piece) > 0)
        return
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")
