"""Who does the workload over real HTTP. Each is imported only in its own process.

`start(url, stack)` gives the job: so many tool calls, then the answer. It opens things on `stack`.
"""

from collections.abc import Awaitable, Callable

Job = Callable[[int], Awaitable[str]]
MODEL = "bench-model"
