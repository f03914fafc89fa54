"""Tokens of OpenID Connect issuers: whose they are, and which keys verify them.

Only `trust` is loaded with the tenants; the others need PyJWT, and are loaded for the first issuer.
"""
