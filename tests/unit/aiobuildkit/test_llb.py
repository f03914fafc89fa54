"""The graph that asks for an image."""

import hashlib

from aiobuildkit.llb import image_source
from aiobuildkit.protos import control_pb2 as pb


def test_the_last_op_names_the_image_by_the_digest_of_its_op():
    definition = image_source("docker.io/library/busybox:latest")
    source, result = getattr(definition, "def")
    asked = pb.Op.FromString(source).source
    assert asked.identifier == "docker-image://docker.io/library/busybox:latest"
    assert dict(asked.attrs) == {"image.resolvemode": "pull"}
    (given,) = pb.Op.FromString(result).inputs
    assert given.digest == "sha256:" + hashlib.sha256(source).hexdigest()
