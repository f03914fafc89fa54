from collections.abc import Generator

import pytest

from aiobuildkit.fsutil.followlinks import Links, outermost
from aiobuildkit.fsutil.sender import DIRECTORY, SYMLINK, Entry


def at_once(steps: Generator[None, None, list[str] | None]) -> list[str] | None:
    result: list[list[str] | None] = []

    def run() -> Generator[None, None, None]:
        result.append((yield from steps))

    assert all(step is None for step in run())
    return result[0]


def follow(links: dict[str, str], *paths: str) -> list[str] | None:
    entries = [Entry(path, SYMLINK | 0o777, target=target) for path, target in links.items()]
    return at_once(Links([Entry("d", DIRECTORY | 0o755), *entries]).follow(paths))


@pytest.mark.parametrize(
    ("links", "paths", "followed"),
    [
        ({}, ["a", "b/c"], ["a", "b/c"]),
        ({}, ["/a/", "./b"], ["a", "b"]),
        ({}, ["a", "a/b", "ab"], ["a", "ab"]),
        ({}, ["a", "."], None),
        ({}, ["/"], None),
        ({}, ["../a"], ["../a"]),
        ({"l": "real"}, ["l"], ["l", "real"]),
        ({"l": "real"}, ["l/x/y"], ["l", "real/x/y"]),
        ({"d/l": "../real"}, ["d/l/x"], ["d/l", "real/x"]),
        ({"d/l": "/real"}, ["d/l"], ["d/l", "real"]),
        ({"d/l": "../../../real"}, ["d/l"], ["d/l", "real"]),
        ({"l": "."}, ["l/x"], ["l", "x"]),
        ({"l": ".."}, ["l"], None),
        ({"1": "2", "2": "3"}, ["1/x"], ["1", "2", "3/x"]),
        ({"1": "2", "2": "1"}, ["1"], ["1", "2"]),
        ({"1": "1/x"}, ["1"], ["1"]),
        ({"l1": "a", "l2": "b", "m": "c"}, ["l*"], ["a", "b", "l*"]),
        ({"d/l": "x"}, ["d/[l]"], ["d/[l]", "d/x"]),
        ({"d/l": "x"}, ["*/l"], ["*/l"]),
        ({"l*": "x", "la": "y"}, ["l\\*"], ["l\\*"]),
        ({"l": "real"}, ["[", "l"], ["[", "l", "real"]),
        ({"l": "real"}, ["l/a", "l/b"], ["l", "real/a"]),
    ],
)
def test_links_in_the_way_are_followed_as_upstream_does(links, paths, followed):
    assert follow(links, *paths) == followed


def test_a_path_that_links_make_ever_longer_ends():
    links = {str(number): f"{number + 1}/{'x' * 200}" for number in range(10_000)}
    followed = follow(links, "0", "a/" * 1_000_000)
    assert followed is not None
    assert len(followed) < 100


def test_absolute_paths_vanish_among_outermost_ones():
    assert outermost(["/a", "b", "b/c", "bc"]) == ["b", "bc"]
