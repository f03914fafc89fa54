"""A request's configuration: any bytes are refused or have one meaning."""

from function_builder.contract.config import BuildConfig, parse_config
from function_builder.contract.references import normalise_reference
from fuzz.refusals import unless_refused


def run(data: bytes) -> None:
    """Read `data` as the entry's bytes."""
    config = unless_refused(lambda: parse_config(data), 400)
    if config is not None:
        _check(config)


def _check(config: BuildConfig) -> None:
    assert parse_config(config.to_json()) == config
    assert config.image or config.skip_push
    if config.image:
        assert normalise_reference(config.image) == config.image
        assert config.image.isascii()
        assert not {*config.image} & {*", @\\\"'"}
        assert config.repository == config.repository.lower()
    for text in [*config.platforms, *config.build_args, *config.build_args.values()]:
        assert "\0" not in text
        text.encode()
    assert not {*"".join(config.platforms)} & {*", "}
