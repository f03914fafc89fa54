import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit.errors import ProtocolError, RPCError, StatusCode
from aiobuildkit.fsutil.sender import (
    DIRECTORY,
    SYMLINK,
    Entry,
    Request,
    Sender,
    State,
    error_packet,
    file_mode,
    order,
)
from aiobuildkit.protos.fsutil_pb2 import Packet

FILES = [Entry("a", 0o644, 3), Entry("d", DIRECTORY | 0o755), Entry("d/b", 0o600, 4)]


def packet(kind: Packet.Type.ValueType, number: int = 0, data: bytes = b"") -> bytes:
    return Packet(type=kind, id=number, data=data).SerializeToString()


def announcing(*entries: Entry) -> tuple[Sender, list[Packet]]:
    sender = Sender()
    return sender, [Packet.FromString(sender.announce(entry)) for entry in entries]


def serving(*entries: Entry) -> Sender:
    sender, _ = announcing(*entries)
    sender.end_list()
    return sender


@pytest.mark.parametrize(
    ("st_mode", "mode"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o755, 1 << 31 | 0o755),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFBLK | 0o660, 1 << 26 | 0o660),
        (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
        (stat.S_IFSOCK | 0o600, 1 << 24 | 0o600),
        (stat.S_IFCHR | 0o600, 1 << 26 | 1 << 21 | 0o600),
        (stat.S_IFREG | 0o4755, 1 << 23 | 0o755),
        (stat.S_IFREG | 0o2755, 1 << 22 | 0o755),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
    ],
)
def test_modes_are_gos(st_mode, mode):
    assert file_mode(st_mode) == mode


def test_paths_are_ordered_by_their_names():
    paths = ["a", "a/b", "a/b/c", "a b", "a!", "a-b", "a.b", "a0", "aa", "é"]
    assert sorted(set(paths), key=order) == paths


def test_an_announcement_has_upstreams_numbers():
    sender = Sender()
    entry = Entry("a", 0o644, size=3, mtime=-1)
    fields = b"\x0a\x01a" + b"\x10\xa4\x03" + b"\x28\x03" + b"\x30" + b"\xff" * 9 + b"\x01"
    assert sender.announce(entry) == b"\x12" + bytes([len(fields)]) + fields
    assert sender.end_list() == b""
    assert sender.fin() == b"\x08\x03"


def test_a_symbolic_link_tells_its_target_and_its_length():
    _, (link,) = announcing(Entry("l", SYMLINK | 0o777, target="é/.."))
    assert (link.stat.linkname, link.stat.size) == ("é/..", 5)


def test_later_names_of_a_file_are_links_of_its_full_size():
    names = [Entry(path, 0o644, 7, link_group=1) for path in "abc"]
    other = Entry("d", 0o644, 7, link_group=2)
    _, packets = announcing(*names, other)
    assert [each.stat.linkname for each in packets] == ["", "a", "a", ""]
    assert {each.stat.size for each in packets} == {7}


TEMPORARY = 1 << 28
"""Go's ModeTemporary, which no file of Linux's has."""


def test_what_must_be_resent_has_a_mode_that_nothing_held_has():
    entries = [
        Entry("a", 0o4755, 3, 7, link_group=1, resend=True),
        Entry("b", 0o4755, 3, 7, link_group=1, resend=True),
        Entry("d", DIRECTORY | 0o755, resend=True),
        Entry("e", 0o644),
    ]
    _, packets = announcing(*entries)
    expected = [0o4755, 0o4755, DIRECTORY | 0o755]
    assert [each.stat.mode for each in packets] == [*(m | TEMPORARY for m in expected), 0o644]
    assert packets[0].stat.mod_time == 7


def test_a_receiver_that_does_not_ask_for_what_must_be_resent_is_wrong():
    """It would build what it holds; directories and later names of a file have no content."""
    entries = [
        Entry("a", 0o644, 3, link_group=1, resend=True),
        Entry("b", 0o644, 3, link_group=1, resend=True),
        Entry("d", DIRECTORY | 0o755, resend=True),
    ]
    sender = serving(*entries)
    with pytest.raises(ProtocolError, match="FIN without a REQ for 1 files that must be sent"):
        sender.receive(packet(Packet.FIN))
    sender = serving(*entries)
    sender.receive(packet(Packet.REQ, 0))
    request = sender.next_request()
    assert request is not None
    sender.end_file(request)
    sender.receive(packet(Packet.FIN))
    assert sender.state is State.CLOSING


def test_files_are_sent_in_the_order_of_asking_by_their_number_in_the_list():
    sender = serving(*FILES)
    sender.receive(packet(Packet.REQ, 2))
    sender.receive(packet(Packet.REQ, 0))
    first = Request(2, FILES[2])
    assert sender.next_request() == first
    assert sender.next_request() == Request(0, FILES[0])
    assert sender.next_request() is None
    assert Packet.FromString(sender.data(first, b"x")) == Packet(type=Packet.DATA, id=2, data=b"x")
    assert Packet.FromString(sender.end_file(first)) == Packet(type=Packet.DATA, id=2)


def test_a_file_may_be_asked_for_before_the_end_of_the_list():
    sender, _ = announcing(FILES[0])
    sender.receive(packet(Packet.REQ, 0))
    assert sender.next_request() == Request(0, FILES[0])


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([packet(Packet.REQ, 3)], "REQ for entry 3: not announced"),
        ([packet(Packet.REQ, 1)], "REQ for entry 1: .*not a regular file"),
        ([packet(Packet.REQ, 0)] * 2, "REQ for entry 0: .*already requested"),
        ([packet(Packet.REQ, 0), packet(Packet.FIN)], "FIN while 1 files are still to be sent"),
        ([packet(Packet.FIN)] * 2, "FIN after the transfer's end"),
        ([packet(Packet.FIN), packet(Packet.REQ)], "REQ after the transfer's end"),
        ([packet(Packet.STAT)], "STAT packets go to the receiver only"),
        ([packet(Packet.DATA)], "DATA packets go to the receiver only"),
        ([b"\x08\x07"], "packet of type 7 packets go to the receiver only"),
        ([b"\xff"], "not a packet"),
    ],
)
def test_what_may_not_come_is_an_error_that_says_why(messages, why):
    sender = serving(*FILES)
    for message in messages[:-1]:
        sender.receive(message)
    with pytest.raises(ProtocolError, match=why):
        sender.receive(messages[-1])


def test_fin_may_not_come_before_the_end_of_the_list():
    sender, _ = announcing(*FILES)
    with pytest.raises(ProtocolError, match="FIN before the end of the list"):
        sender.receive(packet(Packet.FIN))


def test_the_receivers_error_keeps_its_text():
    sender = serving(*FILES)
    with pytest.raises(RPCError, match="disk full") as raised:
        sender.receive(packet(Packet.ERR, data=b"disk full"))
    assert raised.value.code is StatusCode.ABORTED


def test_an_error_packet_holds_its_text():
    assert Packet.FromString(error_packet("é\udcff")) == Packet(type=Packet.ERR, data="é?".encode())


@given(asked=st.permutations(range(6)), sending=st.lists(st.booleans(), max_size=12))
def test_every_file_asked_for_is_sent_once_however_asking_and_sending_mix(asked, sending):
    sender = serving(*(Entry(str(number), 0o644) for number in range(6)))
    waiting = list(asked)
    sent: list[int] = []
    for send in [*sending, *[False] * 6, *[True] * 6]:
        if send and (request := sender.next_request()) is not None:
            sent.append(Packet.FromString(sender.end_file(request)).id)
        elif waiting and not send:
            sender.receive(packet(Packet.REQ, waiting.pop(0)))
    assert sent == list(asked)
    sender.receive(packet(Packet.FIN))
    assert sender.state is State.CLOSING
