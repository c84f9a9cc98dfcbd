"""Zip archives read in place: by name, never unpacked, sizes checked before anything is allocated."""

import struct
import zlib
from typing import NamedTuple

from jaxface.weights.unpickle import Budget, shown

MAX_ENTRIES = 100_000
INFLATION = 16  # times the archive's size that its entries may take together, plus
ALLOWANCE = 64 << 20  # bytes for small archives of mostly zeros

_END, _END64, _LOCATOR64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_ENTRY, _LOCAL = b"PK\1\2", b"PK\3\4"
_STORED, _DEFLATED = 0, 8


class Entry(NamedTuple):
    method: int
    start: int  # of its local header
    packed: int  # bytes in the archive
    size: int  # bytes
    crc: int


class Archive:
    """The entries of a zip archive (stored or deflated, zip64 too).

    Args:
      names_are_paths: refuse names that would lead out of a folder, had anyone unpacked them there;
        the arrays of an .npz may be named as they like.

    Attributes:
      entries: {name: Entry}.

    Raises:
      UnsafeFileError: damaged; names that point out of the archive; entries that are encrypted,
        named twice or together far larger than the archive.
    """

    def __init__(self, data: memoryview, budget: Budget, names_are_paths: bool = True):
        self.data, self.budget, self._names_are_paths = data, budget, names_are_paths
        try:
            count, size, self._directory = self._find_directory()
            if count > MAX_ENTRIES:
                raise budget.refuse(f"an archive of {count:,} entries")
            self.entries = self._read_directory(count, size)
        except (struct.error, IndexError):
            raise budget.refuse("truncated or damaged archive") from None
        total = sum(entry.size for entry in self.entries.values())
        if total > INFLATION * len(data) + ALLOWANCE:
            raise budget.refuse(f"an archive of {len(data):,} bytes that unpacks to {total:,}")

    def _find_directory(self) -> tuple[int, int, int]:
        """Number of entries, bytes and start of the central directory."""
        tail = bytes(self.data[-65557:])
        at = tail.rfind(_END)
        if at < 0:
            raise self.budget.refuse("truncated archive: it has no directory")
        disk, first, here, count, size, start, comment = struct.unpack_from("<4H2IH", tail, at + 4)
        end = len(self.data) - len(tail) + at
        if at + 22 + comment != len(tail):
            raise self.budget.refuse("damaged archive: bytes after its end")
        if end >= 20 and self.data[end - 20 : end - 16] == _LOCATOR64:
            end = struct.unpack_from("<Q", self.data, end - 12)[0]
            if self.data[end : end + 4] != _END64:
                raise self.budget.refuse("damaged archive: no zip64 directory where it points")
            disk, first, here, count, size, start = struct.unpack_from("<2I4Q", self.data, end + 16)
        if disk or first or here != count or start + size != end:
            raise self.budget.refuse("damaged archive: its directory is not where it says")
        return count, size, start

    def _read_directory(self, count: int, size: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        at, end = self._directory, self._directory + size
        for _ in range(count):
            if self.data[at : at + 4] != _ENTRY:
                raise self.budget.refuse("damaged archive: an entry is missing in its directory")
            flags, method = struct.unpack_from("<2H", self.data, at + 8)
            crc, packed, full, name, extra, comment = struct.unpack_from(
                "<3I3H", self.data, at + 16
            )
            start = struct.unpack_from("<I", self.data, at + 42)[0]
            raw = bytes(self.data[at + 46 : at + 46 + name])
            more = self.data[at + 46 + name : at + 46 + name + extra]
            full, packed, start = self._wide(more, full, packed, start)
            text = self._checked_name(raw)
            if flags & 1 or method not in (_STORED, _DEFLATED):
                raise self.budget.refuse(f"entry {shown(text)} is encrypted or packed unusually")
            if text in entries:
                raise self.budget.refuse(f"two entries are named {shown(text)}")
            entries[text] = Entry(method, start, packed, full, crc)
            at += 46 + name + extra + comment
        if at != end:
            raise self.budget.refuse("damaged archive: its directory has another length")
        return entries

    @staticmethod
    def _wide(extra: memoryview, *numbers: int) -> list[int]:
        """Size, packed size and start, of which zip64 keeps the large ones in an extra field."""
        found = b""
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            if kind == 1:
                found = bytes(extra[at + 4 : at + 4 + length])
            at += 4 + length
        wide = []
        for number in numbers:
            if number == 0xFFFFFFFF:
                number, found = struct.unpack_from("<Q", found)[0], found[8:]
            wide.append(number)
        return wide

    def _checked_name(self, raw: bytes) -> str:
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            name = raw.decode("latin-1")
        if not self._names_are_paths:
            return name
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or any(c in name for c in "\\:\0"):
            raise self.budget.refuse(f"entry {shown(name)} points out of the archive")
        return name

    def read(self, name: str) -> memoryview:
        """Bytes of an entry: those of the file where it is stored, else unpacked; checksum verified.

        Raises:
          UnsafeFileError: there is no such entry or it is not what the directory says.
        """
        if name not in self.entries:
            raise self.budget.refuse(f"entry {shown(name)} is missing")
        entry = self.entries[name]
        try:
            if self.data[entry.start : entry.start + 4] != _LOCAL:
                raise self.budget.refuse(f"entry {shown(name)} is not where the directory says")
            lengths = struct.unpack_from("<2H", self.data, entry.start + 26)
        except struct.error:
            raise self.budget.refuse("truncated or damaged archive") from None
        start = entry.start + 30 + sum(lengths)
        packed = self.data[start : start + entry.packed]
        if start + entry.packed > self._directory:
            raise self.budget.refuse(f"entry {shown(name)} runs into the directory")
        if entry.method == _STORED:
            content = packed
        else:
            try:
                content = memoryview(zlib.decompressobj(-15).decompress(packed, entry.size + 1))
            except zlib.error:
                raise self.budget.refuse(f"entry {shown(name)} is damaged") from None
        if len(content) != entry.size or zlib.crc32(content) != entry.crc:
            raise self.budget.refuse(f"entry {shown(name)} is damaged: size or checksum differ")
        return content
