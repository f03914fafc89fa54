"""Read the OIDC tokens that prove a tenant; refuse two tenants that one token could prove."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from function_builder.contract.errors import shown
from function_builder.items import Item
from function_builder.oidc.trust import ClaimPath, Issuer, Trust, TrustIndex, url_fault
from function_builder.tenants.files import Files
from function_builder.tenants.scopes import read_scopes

TRUST_KEYS: Final = (
    *("issuer", "audience", "claims", "scopes"),
    *("jwks_uri", "ca_file", "token_file"),
)
_MAX_DEPTH: Final = 8
_REQUIRED: Final = ("issuer", "audience", "claims")


class TrustReader:
    """Reads the trusts of each tenant, and remembers those of the others.

    Args:
        directory: that of the tenants file, to which files are relative.
        files: reads them.
    """

    def __init__(self, directory: Path, files: Files) -> None:
        self._directory = directory
        self._files = files
        self._issuers: dict[str, Issuer] = {}
        self._trusts = TrustIndex()

    def read(self, name: str, value: Item) -> list[Trust]:
        """The trusts of a tenant, without those that are wrong."""
        found = []
        for item in value.items():
            fields = item.fields(TRUST_KEYS, required=_REQUIRED)
            trust = self._trust(fields) if all(map(fields.__contains__, _REQUIRED)) else None
            if trust is not None and self._is_apart(name, trust, item):
                self._trusts.add(name, trust)
                found.append(trust)
        return found

    def _trust(self, fields: Mapping[str, Item]) -> Trust | None:
        audience, issuer = fields["audience"].text(), self._issuer(fields)
        claims = dict(_claims(fields["claims"]))
        if issuer is None or not audience or not claims:
            return None
        return Trust(issuer, audience, claims, read_scopes(fields))

    def _issuer(self, fields: Mapping[str, Item]) -> Issuer | None:
        for key in ("issuer", "jwks_uri"):
            if key in fields and (url := fields[key].text()) and (fault := url_fault(url)):
                fields[key].fail(f"{shown(url)} {fault}")
                return None
        issuer = Issuer(
            fields["issuer"].text(),
            fields["jwks_uri"].text() if "jwks_uri" in fields else "",
            self._authorities(fields),
            self._token_file(fields),
        )
        if self._issuers.setdefault(issuer.url, issuer) != issuer:
            fields["issuer"].fail(
                "the issuer has another jwks_uri, ca_file or token_file above: give it the same"
            )
            return None
        return issuer if issuer.url else None

    def _authorities(self, fields: Mapping[str, Item]) -> str:
        if "ca_file" not in fields or not (name := fields["ca_file"].text()):
            return ""
        try:
            text = self._files.read(self._directory / name).decode("ascii")
            ssl.create_default_context(cadata=text)
        except OSError as error:
            # An SSLError is one too.
            reason = error.strerror if error.filename else "it has no certificate in PEM"
            fields["ca_file"].fail(f"{shown(name)} cannot be read: {reason}")
        except ValueError:
            fields["ca_file"].fail(f"{shown(name)} has no certificate in PEM")
        else:
            return text
        return ""

    def _token_file(self, fields: Mapping[str, Item]) -> Path | None:
        if "token_file" not in fields or not (name := fields["token_file"].text()):
            return None
        path = self._directory / name
        # Kubernetes replaces it every hour, so its content does not count as part of the file.
        if not path.is_file():
            fields["token_file"].fail(f"{shown(name)} is not a file")
        return path

    def _is_apart(self, name: str, trust: Trust, item: Item) -> bool:
        for owner, other in self._trusts.candidates(trust.issuer.url, trust.claims.get):
            if owner != name and trust.overlaps(other):
                item.fail(
                    f"a token can be that of {owner} too: name a claim in both, with other values"
                )
                return False
        return True


def _claims(value: Item, above: ClaimPath = ()) -> Iterator[tuple[ClaimPath, frozenset[str]]]:
    """Each claim with its values; a mapping is a claim of claims."""
    empty = True
    for name, key, item in value.entries():
        empty = False
        path = (*above, name)
        if len(path) > _MAX_DEPTH:
            # An alias of YAML can make a mapping its own value.
            key.fail(f"a claim has at most {_MAX_DEPTH} names from the token's top")
            return
        if item.is_mapping:
            yield from _claims(item, path)
            continue
        texts = item.texts()
        for text, place in texts:
            if "*" in text:
                place.fail(f"a claim must be {shown(text)} exactly: * has no other meaning here")
        if texts:
            yield path, frozenset(text for text, _ in texts)
    if empty and value.is_mapping:
        value.fail("must name a claim: any token would be the tenant's")
