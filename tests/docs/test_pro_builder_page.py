"""docs/coming-from-pro-builder.md leaves out nothing that pro-builder's users have."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from function_builder.settings import Settings
from tests.support import VECTORS

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from-pro-builder.md").read_text()
NAMES = set(re.findall(r"`([^`\n]+)`", PAGE))

# Of the contract: what exists already, and ends in a setting or is said to be ignored.
VARIABLES = {
    "buildkit_url",
    "buildkit_server_name",
    "insecure",
    "disable_hmac",
    "max_inflight",
    "enable_lchown",
    "build_secrets_private_key_path",
    "secret_mount_path",
    "AWS_SHARED_CREDENTIALS_FILE",
}
VALUES = {
    "serviceAccount",
    "securityContext",
    "nodeSelector",
    "tolerations",
    "affinity",
    "nameOverride",
    "proBuilder.securityContext",
}


def leaves(values: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        deeper = isinstance(value, dict) and key not in ("resources", "securityContext")
        yield from leaves(value, f"{above}{key}.") if deeper else [above + key]


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_each_variable_is_told_of_and_known(variable):
    assert variable in NAMES
    known = {setting.metadata["variable"] for setting in fields(Settings)}
    assert variable in known | {"AWS_SHARED_CREDENTIALS_FILE"}


def test_each_value_of_a_users_file_is_told_of():
    values = yaml.safe_load((VECTORS / "pro-builder-values.yaml").read_text())
    assert set(leaves(values)) | VALUES <= NAMES


def test_each_flag_is_told_of():
    assert {"-license-file", "--tlscert", "--tlskey", "--tlscacert"} <= NAMES


def test_settings_that_it_names_are_settings():
    known = {setting.metadata["variable"] for setting in fields(Settings)}
    ours = {name for name in NAMES if re.fullmatch(r"[a-z]+(_[a-z]+)+", name)}
    assert ours <= known | {"http_proxy", "https_proxy", "no_proxy", "http_requests_in_flight"} | {
        "http_request_duration_seconds"
    }
