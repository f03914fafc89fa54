import pytest

from function_builder.engine import ToolMissing, find_tool
from function_builder.engine.tools import find_plugins, require_tools


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return {
        "path": tmp_path / "path",
        "cache": tmp_path / "cache" / "function-builder" / "tools" / "bin",
    }


def install(directory, name):
    directory.mkdir(parents=True)
    program = directory / name
    program.touch(mode=0o755)
    return program


def test_the_cache_is_looked_into(caches):
    installed = install(caches["cache"], "fb-tool")
    assert find_tool("fb-tool") == installed


def test_path_comes_before_the_cache(caches):
    install(caches["cache"], "fb-tool")
    preferred = install(caches["path"], "fb-tool")
    assert find_tool("fb-tool") == preferred


def test_system_programs_are_found_without_sbin_on_path():
    assert find_tool("setpriv").name == "setpriv"


def test_a_missing_tool_is_named_with_a_remedy():
    with pytest.raises(ToolMissing, match=r"^fb-tool is missing: install it$"):
        find_tool("fb-tool")


def test_all_that_is_missing_is_named_at_once(caches, monkeypatch):
    monkeypatch.setattr("function_builder.engine.tools._SYSTEM_DIRECTORIES", ())
    install(caches["path"], "setpriv")
    with pytest.raises(ToolMissing) as caught:
        require_tools(("runc", "setpriv", "busybox"))
    assert str(caught.value) == (
        "runc is missing: `apt-get install runc`;"
        " busybox is missing: `apt-get install busybox-static`"
    )


def test_cnis_plugins_are_found_where_they_are(caches, tmp_path, monkeypatch):
    places = ("nowhere", "cni")
    monkeypatch.setattr(
        "function_builder.engine.tools.PLUGIN_DIRECTORIES", [str(tmp_path / n) for n in places]
    )
    monkeypatch.setattr("function_builder.engine.tools._SYSTEM_DIRECTORIES", ())
    with pytest.raises(ToolMissing, match=r"^iptables is missing: `apt-get install iptables`$"):
        find_plugins()
    install(caches["path"], "iptables")
    with pytest.raises(ToolMissing, match="apt-get install containernetworking-plugins"):
        find_plugins()
    install(tmp_path / "cni", "bridge")
    assert find_plugins() == tmp_path / "cni"
