"""The core of what is tested with the newest BuildKit holds with the oldest: the same tests."""

# ruff: noqa: F401 (pytest collects what is imported)

from pathlib import Path

import pytest

from function_builder.engine import find_tool
from tests.integration.old_buildkit.conftest import OLD
from tests.integration.test_aiobuildkit import (
    test_a_cancelled_step_is_killed,
    test_a_failing_step_has_its_message_place_vertex_and_exit_code,
    test_a_failure_of_a_huge_dockerfile_arrives_whole,
    test_a_killed_daemon_is_connection_lost,
    test_a_second_time_it_is_cached,
    test_credentials_are_those_of_the_registrys_host,
    test_secrets_reach_a_step,
    test_usage_is_told_and_pruned,
)
from tests.integration.test_build import (
    recorded_builder,
    test_a_base_image_that_cannot_be_had_is_a_failure,
    test_a_build_that_takes_too_long_fails,
    test_a_failing_step_fails_the_build,
    test_a_full_builder_says_429_and_a_client_that_leaves_frees_its_slot,
    test_a_reply_is_whole_when_it_is_not_streamed,
    test_a_syntax_image_that_cannot_be_had_is_no_failure,
    test_build_args_reach_the_build_and_ours_cannot_be_overridden,
    test_secrets_are_opened_and_masked,
    test_the_recorded_publish_builds_and_pushes,
    test_the_recorded_secrets_open_and_their_steps_run,
    test_without_a_push_nothing_is_in_the_registry,
)
from tests.integration.test_content import (
    builds,
    test_a_builder_that_has_built_before_makes_the_image_of_one_that_has_not,
    test_a_buildkit_killed_in_mid_transfer_builds_right_afterwards,
    test_a_connection_that_was_cut_leaves_nothing_behind,
    test_a_transfer_that_broke_leaves_nothing_behind,
    test_builds_at_the_same_time_do_not_mix,
    test_files_of_one_time_stay_so_when_their_content_changes,
    test_other_bytes_alone_make_another_image,
    test_the_image_is_the_tar_after,
)
from tests.integration.test_platforms import (
    arm64_builder,
    base,
    repository,
    test_a_platform_whose_steps_cannot_be_run_is_named_with_those_that_can,
    test_an_index_is_built_pushed_and_run,
    test_one_platform_has_the_images_own_digest,
)
from tests.support import running

pytestmark = pytest.mark.integration


def test_it_is_the_oldest_that_runs(buildkitd):
    config = Path(buildkitd.removeprefix("unix://")).with_name("buildkitd.toml")
    assert running(f"{find_tool(OLD).resolve()}\0--config\0{config}")
