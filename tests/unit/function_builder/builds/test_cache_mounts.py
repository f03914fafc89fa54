import pytest

from function_builder.builds import cache_mounts

MOUNT = "RUN --mount=type=cache,target=/c make\n"


@pytest.mark.parametrize(
    ("dockerfile", "kept"),
    [
        (f"FROM a\n{MOUNT}", True),
        ("FROM a\nRUN --mo\\\nunt=type=cache,target=/c make\n", True),
        # Only an ONBUILD of the base image can mount something here, and it can publish too.
        ("FROM a\nRUN make\n", False),
        (f"FROM a\nARG BUILDKIT_CACHE_MOUNT_NS\n{MOUNT}", False),
        (f"FROM a\nONBUILD ARG BUILDKIT_CACHE_MOUNT_NS=x\n{MOUNT}", False),
        (f"FROM a\nARG 'BUILDKIT_CACHE'_MOUNT_NS\n{MOUNT}", False),
        (f"FROM a\nARG BUILDKIT_\\ \n\nCACHE_MOUNT_NS\n{MOUNT}", False),
        (f"# escape=`\nFROM a\nARG BUILDKIT_`\r\nCACHE_MOUNT_NS\n{MOUNT}", False),
    ],
)
def test_mounts_are_kept_where_the_namespace_is_not_published(dockerfile, kept):
    assert cache_mounts.are_kept(dockerfile.encode()) is kept
