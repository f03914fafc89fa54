"""The web pages of a builder's builds, for a browser.

Importing this imports Jinja, so only a builder with `web` does.
"""

from __future__ import annotations

from function_builder.server.web.routes import web_routes as web_routes
