import pytest

from function_builder.contract.image_format import ImageFormat


@pytest.mark.parametrize(
    ("asked", "default", "result"),
    [
        (ImageFormat(), ImageFormat(), ImageFormat()),
        (ImageFormat(), ImageFormat("zstd", 3, None), ImageFormat("zstd", 3, None)),
        (ImageFormat("gzip"), ImageFormat("zstd", 3, True), ImageFormat("gzip", None, True)),
        # The request's media types exclude the default's compression, and the reverse.
        (ImageFormat("", None, False), ImageFormat("zstd", 3), ImageFormat("", None, False)),
        (ImageFormat("zstd"), ImageFormat("gzip", 1, False), ImageFormat("zstd")),
        (ImageFormat("", None, True), ImageFormat("gzip", 1, False), ImageFormat("gzip", 1, True)),
    ],
)
def test_a_default_completes_what_a_request_leaves_open(
    asked: ImageFormat, default: ImageFormat, result: ImageFormat
) -> None:
    assert asked.over(default) == result


def test_annotations_are_kept_where_dockers_media_types_are_the_default() -> None:
    default = ImageFormat("gzip", 1, oci_media_types=False)
    assert ImageFormat().over(default, annotated=True) == ImageFormat("gzip", 1)
