"""HTTP as tools: `http_tool` is one request, `OpenAPI` a described service, `Client` what both
send with. Needs the extra `http`.

Invariant: what a model says never decides which host is spoken to, and an address that was not
checked is never connected to.
"""

try:
    from roadworthy.tools.http.client import Answer, Client, Request
    from roadworthy.tools.http.declare import http_tool
    from roadworthy.tools.http.openapi import OpenAPI
except ImportError as error:  # an extra
    raise ImportError(
        f"HTTP tools need: pip install 'roadworthy[http]' ({error})", name=error.name
    ) from error

__all__ = ["Answer", "Client", "OpenAPI", "Request", "http_tool"]
