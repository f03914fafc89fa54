"""After a push the registry is asked for the image: when, how often, and what its answers mean."""

import pytest

from aiobuildkit import Auth, Client, ConnectionLost, Exporter, SolveError, StatusCode
from function_builder.builds import pushes
from function_builder.builds.pushes import MAX_TRUSTED, TRUST_SECONDS, Pushes

NOT_FOUND = "failed to load cache key: r:5000/a/b:1: not found"
HTML = "failed to load cache key: unexpected media type text/html for sha256:40f9: not found"
UNPROVEN = [
    "failed to load cache key: r:5000/a/b:1: no match for platform in manifest: not found",
    "failed to load cache key: unexpected status from HEAD request to http://r: 401 Unauthorized",
    "failed to load cache key: failed to do request: Head: connection refused",
    "failed to load cache key: pull access denied, repository does not exist",
]


class BuildKit(Client):
    """Answers as a script says, and notes what it was asked."""

    def __init__(self, *script: Exception | str | None, address: str = "unix:///bk") -> None:
        super().__init__(address)
        self.script = list(script)
        self.asked: list[str] = []

    async def resolve_image(self, reference, *, attachables=()):
        self.asked.append(reference)
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, str):
            raise SolveError(StatusCode.UNKNOWN, answer)
        if answer is not None:
            raise answer


AUTH = Auth(lambda _: None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(pushes, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    return Clock()


def checks(clock: Clock) -> Pushes:
    return Pushes(clock=clock)


def pushed(*names: str) -> list[Exporter]:
    return [Exporter("image", {"name": ",".join(names), "push": "true"})]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("r:5000/a/b:1", "r:5000/a/b:1"),
        ("r:5000/a/b", "r:5000/a/b:latest"),
        ("fn:1", "docker.io/library/fn:1"),
        ("me/fn", "docker.io/me/fn:latest"),
    ],
)
async def test_the_tag_is_asked_for_in_full(clock, name, asked):
    buildkit = BuildKit()
    await checks(clock).check(buildkit, pushed(name), AUTH)
    assert buildkit.asked == [asked]


async def test_what_was_not_pushed_is_not_asked_for(clock):
    buildkit = BuildKit()
    exporters = [Exporter("image", {"name": "r/a:1"}), Exporter("oci"), Exporter("image")]
    await checks(clock).check(buildkit, exporters, AUTH)
    assert buildkit.asked == []


async def test_a_repository_is_asked_about_once_in_a_while_through_each_buildkit(clock):
    one, other = BuildKit(), BuildKit(address="unix:///other")
    checked = checks(clock)
    for tag in ("1", "2"):
        await checked.check(one, pushed(f"r:5000/a/b:{tag}", "r:5000/c:1"), AUTH)
    assert one.asked == ["r:5000/a/b:1", "r:5000/c:1"]
    await checked.check(other, pushed("r:5000/a/b:1"), AUTH)
    assert other.asked == ["r:5000/a/b:1"]
    clock.now = TRUST_SECONDS + 1
    await checked.check(one, pushed("r:5000/a/b:3"), AUTH)
    assert one.asked[2:] == ["r:5000/a/b:3"]


async def test_no_more_repositories_are_remembered_than_the_bound(clock):
    buildkit, checked = BuildKit(), checks(clock)
    for number in range(MAX_TRUSTED + 1):
        await checked.check(buildkit, pushed(f"r/a{number}:1"), AUTH)
    await checked.check(buildkit, pushed(f"r/a{MAX_TRUSTED}:1"), AUTH)
    assert len(buildkit.asked) == MAX_TRUSTED + 1
    await checked.check(buildkit, pushed("r/a0:1"), AUTH)
    assert len(buildkit.asked) == MAX_TRUSTED + 2


async def test_a_web_page_is_no_registry_and_is_asked_about_again(clock):
    buildkit, checked = BuildKit(HTML, HTML), checks(clock)
    for _ in range(2):
        with pytest.raises(
            SolveError, match=r"^failed to push r:5000/a/b:1: its host accepted the "
        ):
            await checked.check(buildkit, pushed("r:5000/a/b:1"), AUTH)
    assert len(buildkit.asked) == 2


async def test_a_tag_that_comes_late_is_there(clock):
    buildkit = BuildKit(NOT_FOUND, NOT_FOUND, None)
    await checks(clock).check(buildkit, pushed("r:5000/a/b:1"), AUTH)
    assert len(buildkit.asked) == 3


async def test_a_tag_that_does_not_come_is_no_success(clock):
    buildkit = BuildKit(*[NOT_FOUND] * 3)
    with pytest.raises(SolveError, match="says that it does not have it"):
        await checks(clock).check(buildkit, pushed("r:5000/a/b:1"), AUTH)


@pytest.mark.parametrize("answer", [*UNPROVEN, ConnectionLost("gone"), TimeoutError()])
async def test_an_answer_that_proves_nothing_fails_no_build(clock, answer):
    buildkit, checked = BuildKit(answer), checks(clock)
    await checked.check(buildkit, pushed("r:5000/a/b:1"), AUTH)
    await checked.check(buildkit, pushed("r:5000/a/b:1"), AUTH)
    assert len(buildkit.asked) == 1
