"""Control groups in directories that look like cgroupfs; hostile Dockerfiles meet the kernel's."""

from pathlib import Path

import pytest

from function_builder.engine.cgroups import ControlGroup, four_fifths

LIMITS = {"memory": 1000, "tasks": 7}


def files(group: Path, *names: str) -> None:
    """What the kernel puts into a new group."""
    group.mkdir(parents=True)
    for name in names:
        (group / name).touch()


def test_version_1_has_a_hierarchy_for_each_resource(tmp_path):
    files(tmp_path / "memory/steps", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    files(tmp_path / "pids/steps", "pids.max")
    ControlGroup("steps", tmp_path).make(**LIMITS)
    assert (tmp_path / "memory/steps/memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "memory/steps/memory.memsw.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids/steps/pids.max").read_text() == "7"


def test_version_2_has_one_whose_resources_are_switched_on(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    files(tmp_path / "steps", "memory.max", "memory.swap.max", "pids.max")
    ControlGroup("steps", tmp_path).make(**LIMITS)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (tmp_path / "steps/memory.max").read_text() == "1000"
    assert (tmp_path / "steps/memory.swap.max").read_text() == "0"
    assert (tmp_path / "steps/pids.max").read_text() == "7"


@pytest.mark.parametrize("hierarchies", [[], ["memory"]])
def test_without_cgroups_none_are_made(tmp_path, hierarchies):
    for name in hierarchies:
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError):
        ControlGroup("steps", tmp_path).make(**LIMITS)


def test_what_steps_left_is_removed_and_what_is_alive_stays(tmp_path):
    for hierarchy in ("memory", "pids", "cpu"):
        (tmp_path / hierarchy / "steps/buildkit/one").mkdir(parents=True)
        (tmp_path / hierarchy / "another").mkdir()
    files(tmp_path / "memory/steps/buildkit/busy", "cgroup.procs")
    ControlGroup("steps", tmp_path).remove()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/steps/**/*")}
    assert left == {"memory/steps/buildkit", "memory/steps/buildkit/busy"} | {
        "memory/steps/buildkit/busy/cgroup.procs"
    }
    assert (tmp_path / "cpu/another").exists()


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_containers_own_limit_counts_where_it_is_less_than_the_machines(tmp_path, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    whole = four_fifths(tmp_path).memory
    path.write_text("max\n")
    assert four_fifths(tmp_path).memory == whole
    path.write_text("1000\n")
    assert four_fifths(tmp_path).memory == 800


@pytest.mark.parametrize(
    ("before", "group", "events"),
    [
        ("cgroup.controllers", "own", "memory.events"),
        ("memory/any", "memory/own", "memory.oom_control"),
    ],
)
def test_a_group_of_memory_alone_tells_how_many_it_ended(tmp_path, before, group, events):
    (tmp_path / before).parent.mkdir(exist_ok=True)
    (tmp_path / before).touch()
    limit = "memory.max" if group == "own" else "memory.limit_in_bytes"
    files(tmp_path / group, limit)
    own = ControlGroup("own", tmp_path)
    own.make(memory=1000)
    assert own.memory_kills() == 0
    (tmp_path / group / events).write_text("low 0\noom 5\noom_kill 2\noom_group_kill 0\n")
    assert own.memory_kills() == 2
    assert own.processes == tmp_path / group / "cgroup.procs"
    assert (tmp_path / group / limit).read_text() == "1000"
