"""One call at a time in a thread, while this process goes on; its error is raised where it waits.

writing = BackgroundCall("checkpoint")
writing.start(write)     # waits for the call before
writing.has_failed()     # a look, without waiting
writing.wait()           # raises what the call raised
"""

import threading
from collections.abc import Callable


class BackgroundCall:
    """A thread for one call at a time.

    Args:
        name: of the thread, for whoever lists them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, call: Callable[[], None]) -> None:
        """Begin a call, once the one before is done.

        Raises:
            BaseException: what the one before raised; this call is not begun then.
        """
        self.wait()

        def run() -> None:
            try:
                call()
            except BaseException as error:  # raised in `wait`
                self._error = error

        # A daemon: a process that is killed by a second signal does not wait for it.
        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()

    def has_failed(self) -> bool:
        """Whether the last call has ended with an error, which `wait` will raise."""
        return self._error is not None

    def wait(self) -> None:
        """Return when the last call is done.

        Raises:
            BaseException: what it raised, once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
