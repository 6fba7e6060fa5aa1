"""The HTTP face: JSON and server-sent events over one `Runtime`. Needs the extra `serve`.

`create_app` makes the application, `asgi` the same for mounting in one's own. Invariant: it uses
the public face of the runtime only.
"""

from roadworthy.api.app import asgi, create_app

__all__ = ["asgi", "create_app"]
