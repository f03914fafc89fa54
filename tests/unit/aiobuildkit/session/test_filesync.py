import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat

import pytest

import aiobuildkit.session.filesync
from aiobuildkit import (
    ConnectionLost,
    Entry,
    FileSync,
    ProtocolError,
    RPCError,
    StatusCode,
    Transfer,
)
from aiobuildkit.fsutil import filter as selection
from aiobuildkit.fsutil.sender import CHUNK, DIRECTORY, SYMLINK
from aiobuildkit.protos.fsutil_pb2 import Packet
from tests.support import until

CONTEXT = {"dir-name": ["context"]}


class Tree:
    """Files that are their own content."""

    def __init__(self, files: Mapping[str, bytes], *others: Entry) -> None:
        self.files = dict(files)
        sized = [Entry(path, 0o644, len(content)) for path, content in files.items()]
        self._entries: Sequence[Entry] = sorted([*sized, *others], key=lambda entry: entry.path)

    def entries(self) -> Sequence[Entry]:
        return self._entries

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        return self.files[entry.path][offset : offset + size]


class Receiver:
    """BuildKit's side of a call: asks for the files that it wants, and says FIN when it has them.

    Attributes:
        files: what it got.
        errors: ERR packets' texts.
        answer: gives packets to send once the list is complete, in place of asking.
        window: open while packets may be sent to it.
    """

    def __init__(
        self,
        metadata: Mapping[str, Sequence[str]],
        *,
        wants: Callable[[str], bool] = lambda path: True,
        answer: Sequence[Packet] | None = None,
        eager: bool = False,
    ) -> None:
        self.metadata = metadata
        self.files: dict[str, bytes] = {}
        self.paths: list[str] = []
        self.errors: list[str] = []
        self.largest = 0
        self.finished = False
        self.window = asyncio.Event()
        self.window.set()
        self._wants = wants
        self._answer = answer
        self._eager = eager
        self._asked: list[int] = []
        self._missing: set[int] = set()
        self._packets: asyncio.Queue[Packet | None] = asyncio.Queue()

    async def receive(self) -> bytes | None:
        packet = await self._packets.get()
        return None if packet is None else packet.SerializeToString()

    async def send(self, *messages: bytes) -> None:
        await self.window.wait()
        for message in messages:
            self._hear(message)

    def _hear(self, message: bytes) -> None:
        self.largest = max(self.largest, len(message))
        packet = Packet.FromString(message)
        match packet.type:
            case Packet.STAT if packet.HasField("stat"):
                self._hear_of(packet)
            case Packet.STAT:
                self._say(self._answer if self._answer is not None else self._asking())
                self._finish_if_complete()
            case Packet.DATA if packet.data:
                self.files[self.paths[packet.id]] += packet.data
            case Packet.DATA:
                self._missing.remove(packet.id)
                self._finish_if_complete()
            case Packet.FIN:
                self.finished = True
            case Packet.ERR:
                self.errors.append(packet.data.decode())

    def leave(self) -> None:
        self._packets.put_nowait(None)

    def _hear_of(self, packet: Packet) -> None:
        number = len(self.paths)
        self.paths.append(packet.stat.path)
        regular = not packet.stat.mode & (DIRECTORY | SYMLINK)
        if regular and not packet.stat.linkname and self._wants(packet.stat.path):
            self.files[packet.stat.path] = b""
            self._missing.add(number)
            self._asked.append(number)
            if self._eager:
                self._say(self._asking())

    def _asking(self) -> list[Packet]:
        asked, self._asked = self._asked, []
        return [Packet(type=Packet.REQ, id=number) for number in asked]

    def _say(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            self._packets.put_nowait(packet)

    def _finish_if_complete(self) -> None:
        if not self._missing and self._answer is None:
            self._say([Packet(type=Packet.FIN)])


async def serve(tree: Tree, receiver: Receiver) -> Transfer:
    files = FileSync({"context": tree})
    (handler,) = files.handlers().values()
    try:
        async with asyncio.timeout(60):
            await handler(receiver)
    finally:
        (transfer,) = files.transfers
    return transfer


async def test_all_files_arrive():
    contents = {"a": b"", "b": b"x", "c": b"y" * CHUNK, "d": b"z" * (2 * CHUNK + 1)}
    receiver = Receiver(CONTEXT)
    transfer = await serve(Tree(contents, Entry("e", DIRECTORY | 0o755)), receiver)
    assert receiver.files == contents
    assert receiver.finished
    assert receiver.largest < CHUNK + 32
    size = sum(map(len, contents.values()))
    assert transfer == Transfer("context", announced=5, requested=4, sent_bytes=size, finished=True)


async def test_files_asked_for_during_the_list_arrive():
    contents = {f"{number:04}": str(number).encode() for number in range(2000)}
    receiver = Receiver(CONTEXT, eager=True)
    await serve(Tree(contents), receiver)
    assert receiver.files == contents


async def test_only_what_is_asked_for_travels():
    receiver = Receiver(CONTEXT, wants=lambda path: path == "b")
    transfer = await serve(Tree({"a": b"a", "b": b"b", "c": b"c"}), receiver)
    assert receiver.files == {"b": b"b"}
    assert (transfer.announced, transfer.requested, transfer.sent_bytes) == (3, 1, 1)


async def test_metadata_choose_the_files():
    metadata = {"dir-name": ["context"], "exclude-patterns": ["*", "!a"]}
    receiver = Receiver(metadata)
    await serve(Tree({"a": b"a", "b": b"b"}), receiver)
    assert receiver.paths == ["a"]


@pytest.mark.parametrize("files", [{}, {"a": b"a"}], ids=["none", "one"])
async def test_what_comes_while_others_have_their_turn_is_not_missed(files, monkeypatch):
    monkeypatch.setattr(aiobuildkit.session.filesync, "_SLICE", -1)
    assert (await serve(Tree(files), Receiver(CONTEXT))).finished
    failing = Receiver(CONTEXT, answer=[Packet(type=Packet.ERR, data=b"disk full")])
    with pytest.raises(RPCError, match="disk full"):
        await serve(Tree(files), failing)


async def test_nothing_to_send_is_a_complete_transfer():
    transfer = await serve(Tree({}), Receiver(CONTEXT))
    assert transfer == Transfer("context", finished=True)


async def test_a_directory_that_is_not_shared_is_not_found():
    files = FileSync({"context": Tree({})})
    (handler,) = files.handlers().values()
    with pytest.raises(RPCError, match="no directory 'other' is shared") as raised:
        await handler(Receiver({"dir-name": ["other"]}))
    assert raised.value.code is StatusCode.NOT_FOUND
    assert files.transfers == []


async def fails(tree: Tree, receiver: Receiver) -> tuple[str, Transfer]:
    """Serve a call that fails on our side: what is said of it, everywhere the same."""
    files = FileSync({"context": tree})
    (handler,) = files.handlers().values()
    with pytest.raises(RPCError) as raised:
        await asyncio.wait_for(handler(receiver), 60)
    assert receiver.errors == [str(raised.value)]
    (transfer,) = files.transfers
    assert not transfer.finished
    assert transfer.error is raised.value.__cause__
    return str(raised.value), transfer


async def test_a_file_that_cannot_be_read_fails_the_call():
    class Broken(Tree):
        def read(self, entry: Entry, offset: int, size: int) -> bytes:
            raise PermissionError(13, "Permission denied", "/srv/spool/1")

    text, _ = await fails(Broken({"a": b"a"}), Receiver(CONTEXT))
    assert text == "cannot read the build's files: Permission denied"


async def test_a_file_that_ends_early_fails_the_call():
    tree = Tree({"a": b"abc"})
    tree.files["a"] = b"a"
    text, transfer = await fails(tree, Receiver(CONTEXT))
    assert text == "cannot read the build's files: a ends after 1 of 3 bytes"
    assert transfer.sent_bytes == 1


async def test_a_tree_that_cannot_be_looked_through_fails_the_call():
    class Gone(Tree):
        def entries(self) -> Sequence[Entry]:
            raise FileNotFoundError(2, "No such file or directory", "/srv/tree")

    text, _ = await fails(Gone({}), Receiver(CONTEXT))
    assert text == "cannot read the build's files: No such file or directory"


async def test_a_malformed_pattern_fails_the_call():
    metadata = {"dir-name": ["context"], "exclude-patterns": ["["]}
    text, _ = await fails(Tree({"a": b"a"}), Receiver(metadata))
    assert text == "syntax error in pattern: ["


async def test_a_name_that_is_not_utf_8_fails_the_call():
    text, _ = await fails(Tree({"\udcff": b""}), Receiver(CONTEXT))
    assert text == "a file's name is not UTF-8: '\\udcff'"


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (Packet(type=Packet.REQ, id=1), "REQ for entry 1"),
        (Packet(type=Packet.DATA), "DATA packets go to the receiver only"),
    ],
)
async def test_a_receiver_that_breaks_the_protocol_is_told(packet, text):
    said, transfer = await fails(Tree({"a": b"a"}), Receiver(CONTEXT, answer=[packet]))
    assert said.startswith(text)
    assert isinstance(transfer.error, ProtocolError)


async def test_a_receiver_that_gives_up_ends_the_call_with_its_text():
    receiver = Receiver(CONTEXT, answer=[Packet(type=Packet.ERR, data=b"disk full")])
    with pytest.raises(RPCError, match="disk full"):
        await serve(Tree({"a": b"a"}), receiver)
    assert receiver.errors == []


async def test_a_receiver_that_leaves_ends_the_call():
    receiver = Receiver(CONTEXT, answer=[])
    receiver.leave()
    with pytest.raises(ConnectionLost):
        await serve(Tree({"a": b"a"}), receiver)


async def test_a_shut_window_holds_the_call_up_without_more_being_read():
    read: list[int] = []

    class Counting(Tree):
        def read(self, entry: Entry, offset: int, size: int) -> bytes:
            read.append(offset)
            receiver.window.clear()
            return super().read(entry, offset, size)

    def has_read(parts: int) -> bool:
        return len(read) >= parts

    receiver = Receiver(CONTEXT)
    call = asyncio.create_task(serve(Counting({"a": b"x" * (3 * CHUNK)}), receiver))
    for part in range(1, 4):
        await until(partial(has_read, part))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(read) == part
        receiver.window.set()
    assert (await call).finished


class Endless(Sequence[Entry]):
    """A tree's entries that no selection comes to the end of.

    Attributes:
        begun: whether one has begun.
    """

    begun = False

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index):
        raise NotImplementedError

    def __iter__(self) -> Iterator[Entry]:
        self.begun = True
        return repeat(Entry("a", 0o644))


class EndlessTree(Tree):
    def __init__(self) -> None:
        super().__init__({})
        self._entries = self.endless = Endless()


NOTHING = {**CONTEXT, "exclude-patterns": ["*"]}


async def test_a_call_that_is_cancelled_stops_selecting():
    tree = EndlessTree()
    call = asyncio.create_task(serve(tree, Receiver(NOTHING)))
    await until(lambda: tree.endless.begun)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # There is but one thread to select in.
    assert (await serve(Tree({"a": b"a"}), Receiver(CONTEXT))).finished


async def test_a_receiver_that_leaves_stops_the_selecting():
    receiver = Receiver(NOTHING)
    receiver.leave()
    with pytest.raises(ConnectionLost):
        await serve(EndlessTree(), receiver)
    assert (await serve(Tree({"a": b"a"}), Receiver(CONTEXT))).finished


async def test_calls_take_turns_selecting():
    tree = EndlessTree()
    endless = asyncio.create_task(serve(tree, Receiver(NOTHING)))
    await until(lambda: tree.endless.begun)
    for _ in range(3):
        assert (await serve(Tree({"a": b"a"}), Receiver(CONTEXT))).finished
    assert not endless.done()
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless


async def test_a_selection_that_takes_too_long_fails_the_call(monkeypatch):
    monkeypatch.setattr(selection, "BUDGET", 0.1)
    text, _ = await fails(EndlessTree(), Receiver(NOTHING))
    assert text == "patterns that take more than 0.1 s for 1 files: *"


async def test_others_have_their_turns_though_flow_control_never_blocks():
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    metadata = {"dir-name": ["context"], "exclude-patterns": [f"*x{n}*" for n in range(50)]}
    receiver = Receiver(metadata, wants=lambda path: False)
    await serve(Tree({f"{number:05}": b"" for number in range(5000)}), receiver)
    task.cancel()
    assert turns > 10


async def test_a_call_that_is_cancelled_leaves_no_task_behind():
    receiver = Receiver(CONTEXT, answer=[])
    before = asyncio.all_tasks()
    call = asyncio.create_task(serve(Tree({"a": b"a"}), receiver))
    await until(lambda: receiver.paths)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
