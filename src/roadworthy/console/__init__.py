"""The console: pages on which people help the agents' users, and see what agents did.

`create_app` mounts its routes. Invariant: it has no queries of its own, it uses the public face of
the runtime only, and no page asks anything of another server.
"""

from roadworthy.console.operators import NameOnly, Operator, SignIn, Tokens
from roadworthy.console.pages import Console
from roadworthy.console.site import routes_of

__all__ = ["Console", "NameOnly", "Operator", "SignIn", "Tokens", "routes_of"]
