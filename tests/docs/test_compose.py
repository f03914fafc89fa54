"""compose.yaml agrees with the settings, the image and the chart."""

from dataclasses import fields
from pathlib import Path

import yaml

from function_builder.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
VALUES = yaml.safe_load((ROOT / "chart" / "function-builder" / "values.yaml").read_text())
VARIABLES = {setting.metadata["variable"] for setting in fields(Settings)}
IMAGE_PAGE = (ROOT / "docs" / "image.md").read_text()


def test_the_builders_variables_are_settings() -> None:
    given = SERVICES["builder"]["environment"]
    assert given.keys() <= VARIABLES
    settings = Settings.from_environment(given)
    socket = settings.buildkit_url.removeprefix("unix://")
    assert f"`{socket}`" in IMAGE_PAGE
    mounted = {each.split(":")[1] for each in SERVICES["builder"]["volumes"]}
    assert mounted == {socket.rpartition("/")[0], settings.store_url.removeprefix("file://")}
    assert settings.nats_url == "nats://nats:4222"
    (secret,) = SERVICES["builder"]["secrets"]
    assert secret["target"] == str(settings.secret_mount_path / "payload-secret")


def test_the_builder_is_restricted_as_the_images_page_says() -> None:
    builder = SERVICES["builder"]
    assert builder["read_only"] is True
    assert builder["cap_drop"] == ["ALL"]
    assert builder["security_opt"] == ["no-new-privileges:true"]
    assert builder["tmpfs"] == ["/tmp"]
    assert (ROOT / builder["build"]["dockerfile"]).exists()


def test_buildkit_and_nats_are_those_of_the_chart() -> None:
    assert SERVICES["buildkit"]["image"] == VALUES["buildkitRootless"]["image"]
    assert SERVICES["nats"]["image"] == VALUES["queue"]["nats"]["image"]
    listens = SERVICES["buildkit"]["command"][0].removeprefix("--addr=")
    assert listens == SERVICES["buildkit"]["environment"]["BUILDKIT_HOST"]
    shared = f"buildkit-socket:{listens.removeprefix('unix://').rpartition('/')[0]}"
    assert shared in SERVICES["buildkit"]["volumes"]


def test_each_name_is_declared() -> None:
    volumes = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
    }
    assert volumes == COMPOSE["volumes"].keys()
    assert [each["source"] for each in SERVICES["buildkit"]["configs"]] == [*COMPOSE["configs"]]
    for service in SERVICES.values():
        assert service.get("depends_on", {}).keys() <= SERVICES.keys()
        published = [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")]
        assert not published
