"""What BuildKit says of its own machine is left out, and nothing else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.builds.hostpaths import without_host_paths


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "cannot replace to directory /var/lib/buildkit/cachemounts/buildkit123/x/a with file",
            "cannot replace to directory /x/a with file",
        ),
        (
            "write /b/state/runc-overlayfs/snapshots/snapshots/8/fs/Dockerfile: no space left",
            "write /Dockerfile: no space left",
        ),
        (
            "write /b/runc-native/content/ingest/ab/data: no space, /b/runc-native/cache.db too",
            "write /content/ingest/ab/data: no space, /cache.db too",
        ),
        ("a: b/c/runc-x/d", "a: b/d"),
        ('process "cat /etc/passwd /x/y" failed', 'process "cat /etc/passwd /x/y" failed'),
        ("", ""),
    ],
)
def test_the_path_in_the_image_is_left(said, told):
    assert without_host_paths(said) == told


@given(st.text("/ runc-x0\n", max_size=60))
def test_what_is_left_was_there_in_that_order(text):
    left = iter(text)
    assert all(letter in left for letter in without_host_paths(text))


@pytest.mark.parametrize("piece", ["/", "/runc-", "/runc-x", " /runc-x", "/cachemounts/buildkit"])
def test_a_megabyte_of_it_takes_no_time_to_speak_of(piece):
    began = time.process_time()
    without_host_paths(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 10
