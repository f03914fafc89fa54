import tomllib
from pathlib import Path

from function_builder.engine import BuildKitConfig, CacheLimits


def written(config, *, process_sandbox=True):
    text = config.toml(
        root=Path("/s t/ä"), socket=Path('/run/"x".sock'), process_sandbox=process_sandbox
    )
    return tomllib.loads(text)


def test_paths_of_any_spelling_survive_the_quoting():
    read = written(BuildKitConfig())
    assert read["root"] == "/s t/ä"
    assert read["grpc"]["address"] == ['unix:///run/"x".sock']


def test_only_the_oci_worker_runs_and_its_cache_is_limited():
    read = written(BuildKitConfig(cache=CacheLimits(reserved="1GB", most="5GB", free="20%")))
    assert read["worker"]["containerd"] == {"enabled": False}
    assert read["worker"]["oci"] == {
        "enabled": True,
        "gc": True,
        "maxUsedSpace": "5GB",
        "minFreeSpace": "20%",
        "noProcessSandbox": False,
        "reservedSpace": "1GB",
    }


def test_a_small_cache_can_be_collected():
    assert CacheLimits.within(10**9) == CacheLimits(reserved="200000000", most="1000000000")
    assert CacheLimits.within(100 * 2**30).reserved == str(2 * 2**30)


def test_the_process_sandbox_can_be_done_without():
    read = written(BuildKitConfig(), process_sandbox=False)
    assert read["worker"]["oci"]["noProcessSandbox"] is True


def test_a_host_may_be_a_mirror_and_plain_http_at_once():
    config = BuildKitConfig(
        mirrors={"docker.io": ["127.0.0.1:5000"], "a:1": ["b:2", "c:3"]},
        plain_http=["127.0.0.1:5000", "a:1"],
    )
    assert written(config)["registry"] == {
        "127.0.0.1:5000": {"http": True},
        "a:1": {"http": True, "mirrors": ["b:2", "c:3"]},
        "docker.io": {"mirrors": ["127.0.0.1:5000"]},
    }


def test_a_host_with_authorities_of_its_own_speaks_tls():
    config = BuildKitConfig(authorities={"127.0.0.1:5443": [Path("/s t/ca.pem")], "b": []})
    assert written(config)["registry"] == {
        "127.0.0.1:5443": {"http": False, "ca": ["/s t/ca.pem"]},
        "b": {"http": False, "ca": []},
    }


def test_steps_are_put_below_a_group_where_there_is_one():
    config = BuildKitConfig()
    text = config.toml(root=Path("/r"), socket=Path("/s"), process_sandbox=True, step_group="g")
    assert tomllib.loads(text)["worker"]["oci"]["defaultCgroupParent"] == "g"
    assert "defaultCgroupParent" not in written(config)["worker"]["oci"]
