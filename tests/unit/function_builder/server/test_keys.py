"""What signs callbacks, as its files have it."""

import dataclasses
from pathlib import Path

import pytest

from function_builder.contract.callback_url import CallbackHosts
from function_builder.errors import StartError
from function_builder.queue.webhooks import format_secret
from function_builder.server import keys
from function_builder.server.start_checks import check_start
from function_builder.settings import Settings
from tests.support import free_address

NEW, OLD = bytes(32), bytes(range(24))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "payload-secret").write_text("a payload secret\n")
    (tmp_path / "webhook-secret").write_text(format_secret(NEW) + "\n")
    return Settings.from_environment(
        {
            "secret_mount_path": str(tmp_path),
            "buildkit_url": "unix:///nowhere",
            "listen": free_address(),
            "metrics_listen": free_address(),
            "callback_hosts": "hooks.example.com",
        }
    )


def test_the_files_are_read_for_each_callback(settings: Settings):
    assert keys.callback_keys(settings) == ([NEW], b"a payload secret")
    previous = settings.secret_mount_path / "webhook-secret-previous"
    previous.write_text(format_secret(OLD))
    assert keys.callback_keys(settings) == ([NEW, OLD], b"a payload secret")
    previous.unlink()
    assert keys.callback_keys(settings).webhook == [NEW]


def test_an_open_builder_signs_with_the_webhook_secret_alone(settings: Settings):
    (settings.secret_mount_path / "payload-secret").unlink()
    assert keys.callback_keys(dataclasses.replace(settings, disable_hmac=True)).payload is None


@pytest.mark.parametrize("name", ["webhook-secret", "webhook-secret-previous"])
def test_a_file_that_holds_something_else_is_told_without_it(settings: Settings, name: str):
    (settings.secret_mount_path / name).write_bytes(b"s3cr3t \xff")
    with pytest.raises(keys.KeyFileError, match="must begin with whsec_") as told:
        keys.callback_keys(settings)
    assert "s3cr3t" not in str(told.value)


def test_the_builder_does_not_start_without_the_secret_if_it_sends_callbacks(settings: Settings):
    check_start(settings)
    (settings.secret_mount_path / "webhook-secret").unlink()
    with pytest.raises(StartError, match="the webhook secret cannot be read"):
        check_start(settings)
    check_start(dataclasses.replace(settings, callback_hosts=CallbackHosts()))
