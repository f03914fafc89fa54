import pytest

from function_builder.engine import RootlessRefused, ToolMissing
from function_builder.engine.namespaces import for_ordinary_user

WORKS = "exit 0"
REFUSES = "echo noise; echo 'write uid_map: denied' >&2; exit 1"
REFUSES_PROC = 'case "$*" in *--pidns*) exit 1 ;; esac'


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Stand-ins for the system's programs, which refuse what they are told to refuse."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(**scripts):
        for name, script in scripts.items():
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    install(newuidmap=WORKS, unshare=WORKS, rootlesskit=WORKS)
    return install


async def test_an_ordinary_users_daemon_has_its_own_processes(programs, tmp_path):
    within = await for_ordinary_user(tmp_path / "state")
    assert "--pidns" in within.argv
    assert within.own_processes


async def test_it_does_without_where_no_proc_can_be_mounted(programs, tmp_path):
    programs(rootlesskit=REFUSES_PROC)
    within = await for_ordinary_user(tmp_path / "state")
    assert "--pidns" not in within.argv
    assert not within.own_processes


async def test_forbidden_user_namespaces_are_named_with_what_allows_them(programs, tmp_path):
    programs(unshare=REFUSES)
    with pytest.raises(RootlessRefused, match=r"^user namespaces are forbidden here: .*sysctl"):
        await for_ordinary_user(tmp_path / "state")


async def test_missing_ids_are_named_with_rootlesskits_own_words(programs, tmp_path):
    programs(rootlesskit=REFUSES)
    with pytest.raises(RootlessRefused, match=r"/etc/subuid.*: write uid_map: denied$"):
        await for_ordinary_user(tmp_path / "state")


async def test_a_missing_rootlesskit_is_named_with_its_package(programs, tmp_path, monkeypatch):
    monkeypatch.setattr("function_builder.engine.tools._SYSTEM_DIRECTORIES", ())
    (tmp_path / "rootlesskit").unlink()
    with pytest.raises(ToolMissing, match="rootlesskit is missing: `apt-get install rootlesskit"):
        await for_ordinary_user(tmp_path / "state")
