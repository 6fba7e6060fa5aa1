"""Tools of MCP servers: `MCP` is a toolset over stdio or streamable HTTP. Needs the extra `mcp`.

This package and `roadworthy.mcp_server` alone import the library `mcp`. Invariant: only tools that
were accepted are called, and an effect is never sent twice because a connection broke.
"""

try:
    from roadworthy.tools.mcp.declare import MCP
except ImportError as error:  # an extra
    raise ImportError(
        f"MCP servers need: pip install 'roadworthy[mcp]' ({error})", name=error.name
    ) from error
from roadworthy.tools.mcp.pins import Offer, fingerprint
from roadworthy.tools.mcp.signing import ClientCredentials

__all__ = ["MCP", "ClientCredentials", "Offer", "fingerprint"]
