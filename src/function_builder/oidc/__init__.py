"""Tokens of OpenID Connect issuers: the tenants that they prove, and the keys that verify them.

Only `trust` is loaded with the tenants; the others need PyJWT, and are loaded for the first issuer.
"""
