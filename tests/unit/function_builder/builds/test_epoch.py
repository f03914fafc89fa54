import pytest

from function_builder.builds import epoch, options
from function_builder.builds.build import BuildRequest
from function_builder.contract.config import BuildConfig
from function_builder.contract.context import ContextEntry
from tests.support.build_requests import build_request


def request(*, digests: tuple[bytes, ...] = (b"a", b"b"), names_epoch: bool = False, **build_args):
    return build_request(
        config=BuildConfig(build_args=build_args),
        context=[ContextEntry(path, 0o100644, 0, 0, "", 0, 0) for path in ("a", "b")],
        digests=digests,
        names_epoch=names_epoch,
    )


@pytest.mark.parametrize(
    ("given", "reproducible"),
    [
        (request(), False),
        (request(OTHER="1"), False),
        (request(SOURCE_DATE_EPOCH="0"), True),
        (request(SOURCE_DATE_EPOCH=""), True),
        (request(names_epoch=True), True),
    ],
)
def test_an_image_is_to_be_reproducible_if_the_author_names_an_epoch(given, reproducible: bool):
    assert bool(epoch.view(given, options.frontend_attrs(given, {}))) is reproducible


def test_what_buildkit_looks_at_depends_on_arguments_and_the_dockerfile_but_not_on_the_epoch():
    def view(given: BuildRequest, **more: str) -> bytes:
        return epoch.view(given, options.frontend_attrs(given, {}) | more)

    one = view(request(FROM="a", SOURCE_DATE_EPOCH="0"))
    assert one == view(request(FROM="a", SOURCE_DATE_EPOCH="1"))
    assert one != view(request(FROM="b", SOURCE_DATE_EPOCH="0"))
    one = request(names_epoch=True)
    other = request(names_epoch=True, digests=(b"a", b"c"))
    assert view(one, filename="a") == view(other, filename="a")
    assert view(one, filename="b") != view(other, filename="b")
