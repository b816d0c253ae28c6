"""What the embedded LM keeps of its work, up to a number of bytes or of things: what was used least recently goes."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Least recently used goes first; any thread may ask. What was kept last stays, however large."""

    def __init__(self, room: int, size: Callable[[T], int] = lambda _: 1) -> None:
        """An empty one.

        Args:
            room: what the sizes of all that is kept add up to at most.
            size: of one thing, in the room's unit; by default each is 1.
        """
        self.room = room
        self._size, self._used = size, 0
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> T | None:
        """What is kept under this key, now used most recently; None = nothing."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, made: T) -> T:
        """Keep it, unless another thread was first; what is kept now."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._used += self._size(made)
                while self._used > self.room and len(self._kept) > 1:
                    _, gone = self._kept.popitem(last=False)
                    self._used -= self._size(gone)
            return self._kept.get(key, made)

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._kept.clear()
            self._used = 0
