"""BoundedHTTP builds on internals of uvicorn, which may change in any minor version.

It overrides methods that uvicorn's protocol calls itself, and reads `cycle`, `flow` and `parser`.
Tests of the bounds would notice some changes, but not a new path around one of the bounds.
"""

import inspect
import re
import tomllib
from hashlib import sha256
from pathlib import Path

import uvicorn
from uvicorn.protocols.http import flow_control, httptools_impl

READ = "0.54.0"
"""The version whose modules were read beside server/http.py; DIGEST is theirs."""
DIGEST = "ea814cf42e50628d"


def test_the_protocol_is_the_one_that_was_read():
    source = inspect.getsource(httptools_impl) + inspect.getsource(flow_control)
    digest = sha256(source.encode()).hexdigest()[:16]
    assert digest == DIGEST, (
        f"uvicorn {uvicorn.__version__} has another httptools_impl.py or flow_control.py than"
        f" {READ}. Compare them, see that each bound of BoundedHTTP (server/http.py) still holds,"
        f" then write {uvicorn.__version__} and {digest} here, and the version in pyproject.toml"
    )


def test_only_the_minor_version_that_was_read_is_installed():
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    (pin,) = (
        line for line in project["optional-dependencies"]["server"] if line.startswith("uvicorn")
    )
    assert pin == f"uvicorn~={READ}"
    assert re.match(rf"{READ.rpartition('.')[0]}\.", uvicorn.__version__)
