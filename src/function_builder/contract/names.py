"""Names in a request's archive, and their limits."""

from __future__ import annotations

import re
from typing import Final

CONFIG_NAME: Final = "com.openfaas.docker.config"
"""The entry of the configuration."""

LIKE_DOCKERFILE: Final = re.compile(
    r"(docker|container)[-_ ]?file([-_. ][^/]*)?(?<!ignore)|[^/]*[.](docker|container)file",
    re.IGNORECASE,
)
"""A file name that may be meant as the Dockerfile's."""

SECRETS_NAME: Final = "com.openfaas.secrets"
"""The entry of sealed build secrets."""

CONTEXT: Final = "context"
"""The folder of the build context."""

MAX_PATH: Final = 4095
"""Bytes: Linux's PATH_MAX without the final NUL. BuildKit cannot store a longer path."""
