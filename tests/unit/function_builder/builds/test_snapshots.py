"""What a killed BuildKit leaves: its error, as BuildKit 0.32 wrote it, and what is none."""

from function_builder.builds.snapshots import leftover_was_met

MET = (
    "failed to read dockerfile: failed to prepare  as cpq5ezuq01r10nlgjzq7y53fe: failed to rename: "
    "rename /bk/state/runc-overlayfs/snapshots/snapshots/new-736616906 "
    "/bk/state/runc-overlayfs/snapshots/snapshots/549: file exists"
)


def test_a_directory_in_a_snapshots_way():
    assert leftover_was_met(MET)


def test_a_step_that_quotes_the_error_is_not_run_again():
    quoted = (
        f"process \"/bin/sh -c echo '{MET}'; exit 1\" did not complete successfully: exit code: 1"
    )
    assert not leftover_was_met(quoted)


def test_another_rename_of_a_snapshot_is_none():
    assert not leftover_was_met(MET.replace("file exists", "no space left on device"))
