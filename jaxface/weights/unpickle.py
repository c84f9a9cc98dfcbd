"""Pickles without their power: a machine that builds plain values and calls nothing of the file's.

A pickle is a program for a stack machine. Python's own machine imports whatever name the program
gives and calls it, so that opening a file of weights runs it. This one knows the same opcodes, but a
name is only a key into a table of functions of this package (`Machine.allowed`), which build records
and arrays; every other name is refused and told. No attribute is looked up or set on anything.

Bounds, whatever the file says: opcodes and bytes are counted over all nested streams (`Budget`), the
memo is a dictionary, values are slices of the file, and keys are of types whose hashes an author
cannot make collide. Nothing here recurses.
"""

import codecs
import mmap
import os
import pathlib
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from jaxface.errors import UserError

MAX_OPCODES = 500_000  # a StyleGAN3 snapshot takes 42,000; this many take about a second
MAX_DEPTH = 32  # of dictionaries in dictionaries
MAX_NAME = 1000  # characters of an array's name
SLACK = 16 << 20  # bytes that even a small file may ask for
_MAX_ARGUMENTS = 16

_SENSELESS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


class UnsafeFileError(UserError):
    """A file of weights that asks for more than weights, or does not hold what it declares."""


def shown(text: Any, limit: int = 100) -> str:
    """What a file says, fit for one line of a terminal: printable ASCII, cut at `limit`."""
    text = re.sub(r"[^\x20-\x7e]", "?", str(text)[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def open_bytes(path: str | os.PathLike) -> memoryview:
    """The bytes of a plain file, mapped and not read.

    Raises:
      UserError: no such file, or a folder or device.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"{shown(path, 300)}: there is no such file.")
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise UnsafeFileError(f"{shown(path, 300)}: refused: the file is empty.")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise UserError(f"{shown(path, 300)}: cannot be read ({error.strerror}).") from None


class Budget:
    """What one file may cost, shared by every stream in it."""

    def __init__(self, path: str | os.PathLike, size: int):
        self.path = path
        self.opcodes = MAX_OPCODES
        self.bytes = 4 * size + SLACK

    def refuse(self, why: str) -> UnsafeFileError:
        return UnsafeFileError(f"{shown(self.path, 300)}: refused: {why}.")

    def take_bytes(self, number: int) -> None:
        self.bytes -= number
        if self.bytes < 0:
            raise self.refuse("it asks for far more memory than it has bytes")

    def take_opcodes(self, number: int) -> None:
        self.opcodes -= number
        if self.opcodes < 0:
            raise self.refuse(f"its pickle takes more than {MAX_OPCODES:,} steps")


class Global:
    """A name that the table knows. `make(*args)` stands in for a call of it, where it may be called."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable | None):
        self.name, self.make = name, make


class Buildable:
    """A record that takes a state from the stream (opcode BUILD) in a method of its own."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        raise NotImplementedError


class Machine:
    """Runs the pickles of one buffer.

    Args:
      data: the buffer.
      allowed: {(module, name): function standing in for a call, None for a name that is only named}.
      budget: of the file.
      persistent: what a persistent id, a value of the stream, stands for; None refuses all.
    """

    def __init__(
        self,
        data: memoryview,
        allowed: Mapping[tuple[str, str], Callable | None],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
    ):
        self.data, self.allowed, self.budget, self.persistent = data, allowed, budget, persistent
        self.at = 0

    def load(self) -> Any:
        """The value of the pickle at `self.at`, which then is the byte after it.

        Raises:
          UnsafeFileError: names what is refused, or the byte where the stream makes no sense.
        """
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        try:
            while True:
                self.budget.opcodes -= 1
                if self.budget.opcodes < 0:
                    self.budget.take_opcodes(0)
                code = self.data[self.at]
                self.at += 1
                if code == 0x2E:  # STOP
                    value = self._pop()
                    if self.stack or self.marks:
                        raise ValueError("values left over")
                    return value
                if code not in _OPCODES:
                    raise self.budget.refuse(
                        f"its pickle uses opcode 0x{code:02x}, which no file of weights needs"
                    )
                _OPCODES[code](self)
        except UnsafeFileError:
            raise
        except IndexError:
            raise self.budget.refuse(f"truncated or damaged at byte {self.at:,}") from None
        except _SENSELESS as error:
            why = shown(error, 80) or type(error).__name__
            raise self.budget.refuse(f"damaged at byte {self.at:,} ({why})") from None

    # ---- bytes of the stream ----------------------------------------------------------------

    def _take(self, number: int) -> memoryview:
        piece = self.data[self.at : self.at + number]
        if len(piece) != number:
            raise IndexError
        self.at += number
        return piece

    def _number(self, layout: str) -> int:
        return struct.unpack("<" + layout, self._take(struct.calcsize("<" + layout)))[0]

    def _line(self, limit: int) -> bytes:
        # In growing pieces: many short lines must not each copy the longest allowed one.
        seen = 64
        while True:
            piece = bytes(self.data[self.at : self.at + min(seen, limit)])
            end = piece.find(b"\n")
            if end >= 0:
                self.at += end + 1
                return piece[:end]
            if self.at + len(piece) == len(self.data):
                raise IndexError
            if len(piece) == limit:
                raise ValueError(f"no end of line in {limit:,} bytes")
            seen *= 4

    # ---- the stack --------------------------------------------------------------------------

    def _pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the stack is empty")
        return self.stack.pop()

    def _top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the stack is empty")
        return self.stack[-1]

    def _pop_mark(self) -> list:
        if not self.marks:
            raise ValueError("no mark on the stack")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _pop_some(self, number: int) -> list:
        return [self._pop() for _ in range(number)][::-1]

    def _unmemoized(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def _memoize(self, index: int) -> None:
        if not 0 <= index < MAX_OPCODES:
            raise self.budget.refuse(f"its memo is huge (entry {index:,})")
        self.memo[index] = self._top()

    # ---- containers -------------------------------------------------------------------------

    def _fill(self, target: Any, items: list) -> None:
        if type(target) is not dict or len(items) % 2:
            raise ValueError("items for what is no dictionary")
        for key, value in zip(items[::2], items[1::2]):
            target[hashable(key)] = value

    def _extend(self, items: list) -> None:
        target = self._top()
        if type(target) is not list:
            raise ValueError("items for what is no list")
        target.extend(items)

    def _add(self, items: list) -> None:
        target = self._top()
        if type(target) is not set:
            raise ValueError("items for what is no set")
        target.update(map(hashable, items))

    # ---- names and what is made of them -----------------------------------------------------

    def _find(self, module: Any, name: Any) -> Global:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a global whose name is no text")
        if (module, name) not in self.allowed:
            raise self.budget.refuse(
                f"it asks for {shown(module)}.{shown(name)}, which no file of weights needs"
            )
        return Global(f"{module}.{name}", self.allowed[module, name])

    def _make(self, what: Any, arguments: Any) -> None:
        if type(arguments) is tuple and len(arguments) > _MAX_ARGUMENTS:
            raise ValueError(f"a call with {len(arguments):,} arguments")  # each call copies them
        if type(what) is not Global or what.make is None or type(arguments) is not tuple:
            name = what.name if type(what) is Global else f"a {type(what).__name__}"
            raise self.budget.refuse(f"it calls {name}, which no file of weights needs")
        self.stack.append(what.make(*arguments))

    def _reduce(self) -> None:
        what, arguments = self._pop_some(2)
        self._make(what, arguments)

    def _reduce_with_names(self) -> None:
        what, arguments, names = self._pop_some(3)
        if names != {}:
            raise ValueError("named arguments")
        self._make(what, arguments)

    def _build(self) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(target, Buildable):
            target.build(state)
        elif (
            type(target) is not dict
        ):  # a dictionary's attributes, versions of modules, are left out
            raise ValueError(f"a state for a {type(target).__name__}")

    def _instance(self) -> None:
        module, name = (self._line(MAX_NAME).decode("utf-8") for _ in range(2))
        self._find(module, name)
        raise self.budget.refuse(f"it makes an instance of {shown(module)}.{shown(name)}")

    def _object(self) -> None:
        items = self._pop_mark()
        self._make(items[0], tuple(items[1:]))

    def _persistent(self) -> None:
        identity = self._pop()
        if self.persistent is None:
            raise self.budget.refuse("it refers to objects outside of it")
        self.stack.append(self.persistent(identity))

    def _refuse_opcode(self, what: str) -> None:
        raise self.budget.refuse(f"its pickle uses {what}, which no file of weights needs")


def hashable(key: Any) -> Any:
    """`key` if it cannot be made to collide with others at will or be slow to compare, else ValueError.

    Hashes of texts are salted; those of small integers spread; an equal long text is compared to its
    end at every look-up.
    """
    if type(key) is str and len(key) > MAX_NAME:
        raise ValueError(f"a name of {len(key):,} characters")
    small = type(key) is int and abs(key) < 1 << 60
    if small or type(key) is str or key is None or type(key) is bool:
        return key
    raise ValueError(f"a key that is a {type(key).__name__}")


def _integer(text: bytes) -> int | bool:
    if text in (b"00", b"01"):
        return text == b"01"
    return int(text[:40])


def _long(m: Machine, size: int) -> int:
    if not 0 <= size <= 16:
        raise ValueError(f"an integer of {size} bytes")
    return int.from_bytes(m._take(size), "little", signed=True)


def _quoted(text: bytes) -> str:
    if len(text) < 2 or text[0] != text[-1] or text[0] not in b"'\"":
        raise ValueError("a string without quotes")
    text = text[1:-1]
    if b"\\" in text:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python has not
            text = codecs.escape_decode(text)[0]
    return text.decode("latin-1")


def _push(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(make(m))


def _text(layout: str, encoding: str, errors: str = "strict") -> Callable[[Machine], None]:
    return _push(lambda m: str(m._take(m._number(layout)), encoding, errors))


def _set_item(m: Machine) -> None:
    items = m._pop_some(2)
    m._fill(m._top(), items)


def _set_items(m: Machine) -> None:
    items = m._pop_mark()
    m._fill(m._top(), items)


def _dictionary(m: Machine) -> None:
    target: dict = {}
    m._fill(target, m._pop_mark())
    m.stack.append(target)


def _pop_or_unmark(m: Machine) -> None:
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m._pop()


def _global(m: Machine) -> Global:
    module, name = (m._line(MAX_NAME).decode("utf-8") for _ in range(2))
    return m._find(module, name)


_LINE = 1 << 24  # bytes of a text in protocol 0
_OPCODES: dict[int, Callable[[Machine], Any]] = {
    0x80: lambda m: m._take(1),  # PROTO
    0x95: lambda m: m._take(8),  # FRAME
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): _pop_or_unmark,
    ord("1"): lambda m: m._pop_mark(),
    ord("2"): _push(lambda m: m._top()),
    ord("N"): _push(lambda m: None),
    0x88: _push(lambda m: True),
    0x89: _push(lambda m: False),
    ord("I"): _push(lambda m: _integer(m._line(64))),
    ord("L"): _push(lambda m: int(m._line(64).rstrip(b"L"))),
    ord("J"): _push(lambda m: m._number("i")),
    ord("K"): _push(lambda m: m._number("B")),
    ord("M"): _push(lambda m: m._number("H")),
    0x8A: _push(lambda m: _long(m, m._number("B"))),
    0x8B: _push(lambda m: _long(m, m._number("i"))),
    ord("F"): _push(lambda m: float(m._line(64))),
    ord("G"): _push(lambda m: struct.unpack(">d", m._take(8))[0]),
    # Strings of Python 2, which may be bytes: latin-1 keeps them (see `as_bytes`).
    ord("S"): _push(lambda m: _quoted(m._line(_LINE))),
    ord("T"): _text("I", "latin-1"),
    ord("U"): _text("B", "latin-1"),
    ord("V"): _push(lambda m: m._line(_LINE).decode("raw-unicode-escape")),
    ord("X"): _text("I", "utf-8", "surrogatepass"),
    0x8C: _text("B", "utf-8", "surrogatepass"),
    0x8D: _text("Q", "utf-8", "surrogatepass"),
    ord("B"): _push(lambda m: m._take(m._number("I"))),
    ord("C"): _push(lambda m: m._take(m._number("B"))),
    0x8E: _push(lambda m: m._take(m._number("Q"))),
    0x96: _push(lambda m: m._take(m._number("Q"))),
    ord("]"): _push(lambda m: []),
    ord("l"): _push(lambda m: m._pop_mark()),
    ord("a"): lambda m: m._extend([m._pop()]),
    ord("e"): lambda m: m._extend(m._pop_mark()),
    ord(")"): _push(lambda m: ()),
    ord("t"): _push(lambda m: tuple(m._pop_mark())),
    0x85: _push(lambda m: tuple(m._pop_some(1))),
    0x86: _push(lambda m: tuple(m._pop_some(2))),
    0x87: _push(lambda m: tuple(m._pop_some(3))),
    ord("}"): _push(lambda m: {}),
    ord("d"): _dictionary,
    ord("s"): _set_item,
    ord("u"): _set_items,
    0x8F: _push(lambda m: set()),
    0x90: lambda m: m._add(m._pop_mark()),
    0x91: _push(lambda m: frozenset(map(hashable, m._pop_mark()))),
    ord("p"): lambda m: m._memoize(int(m._line(64))),
    ord("q"): lambda m: m._memoize(m._number("B")),
    ord("r"): lambda m: m._memoize(m._number("I")),
    0x94: lambda m: m._memoize(len(m.memo)),
    ord("g"): lambda m: m._unmemoized(int(m._line(64))),
    ord("h"): lambda m: m._unmemoized(m._number("B")),
    ord("j"): lambda m: m._unmemoized(m._number("I")),
    ord("c"): _push(_global),
    0x93: _push(lambda m: m._find(*m._pop_some(2))),
    ord("R"): Machine._reduce,
    0x81: Machine._reduce,  # NEWOBJ: to make it is to call it
    0x92: Machine._reduce_with_names,
    ord("b"): Machine._build,
    ord("i"): Machine._instance,
    ord("o"): Machine._object,
    ord("Q"): Machine._persistent,
    ord("P"): lambda m: m._refuse_opcode("a persistent id in text"),
    0x82: lambda m: m._refuse_opcode("the extension registry"),
    0x83: lambda m: m._refuse_opcode("the extension registry"),
    0x84: lambda m: m._refuse_opcode("the extension registry"),
    0x97: lambda m: m._refuse_opcode("a buffer outside of it"),
    0x98: lambda m: m._refuse_opcode("a buffer outside of it"),
}
