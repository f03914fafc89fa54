"""Sealed build secrets: any bytes are refused, or hold what PyYAML finds in them too."""

import yaml
from nacl.public import PrivateKey

from function_builder.contract.secrets import SecretsKey, unseal
from fuzz.refusals import unless_refused

KEY = SecretsKey(PrivateKey(bytes(range(32))))
"""What the kept inputs are sealed for."""


def run(data: bytes) -> None:
    """Open `data` as the entry's bytes."""
    assert unless_refused(lambda: unseal(data, None), 400) is None
    values = unless_refused(lambda: unseal(data, KEY), 400)
    if values is None:
        return
    try:
        document = yaml.load(data, yaml.BaseLoader)
    except yaml.YAMLError:
        # Several documents, of which ours is the first; and what only libyaml takes.
        return
    assert values.keys() == document.get("secrets", {}).keys()
