"""The overlapped file converter of the textbooks: ASCII in, UTF-16 out.

    python examples/ascii_to_utf16.py SOURCE TARGET

The file is cut into records.  RECORDS of them are on their way at any moment,
each in one of two states: being read, or being written.  A record that has been
read is converted and written at its place in the target, twice as far from the
beginning; one that has been written goes back to read the next piece of the
source.  Completions arrive in any order, and no order is needed: every
operation carries its own offset, and the target's length grows by itself.

Where the textbooks wait for one of 2 * RECORDS events, there is one port; where
they find the record by the event's number, the operation is the record.
"""

from __future__ import annotations

import codecs
import sys

import portio

RECORDS = 8
RECORD_SIZE = 64 * 1024


class NotAsciiError(ValueError):
    """A byte of the source is not ASCII."""


class ReadRecord(portio.Read):
    """Reads a piece of the source; remembers the write that goes with it."""

    def __init__(
        self, source: portio.CompletionKey, target: portio.CompletionKey, number: int
    ) -> None:
        self.record = bytearray(RECORD_SIZE)
        super().__init__(source, self.record, offset=number * RECORD_SIZE)
        self.write = WriteRecord(target, self)

    def move_on(self) -> None:
        """Aim at the next piece that no other record will read."""
        self.offset += RECORDS * RECORD_SIZE

    def converted(self) -> bytes:
        """What has been read, in UTF-16."""
        try:
            return self.record[: self.result()].decode("ascii").encode("utf-16-le")
        except UnicodeDecodeError as error:
            where = self.offset + error.start
            raise NotAsciiError(f"byte {where} is not ASCII") from None


class WriteRecord(portio.Write):
    """Writes a converted piece; remembers the read that it came from."""

    def __init__(self, target: portio.CompletionKey, read: ReadRecord) -> None:
        super().__init__(target, b"")
        self.read = read

    def take(self, converted: bytes) -> None:
        """The bytes to write; their place follows from where they were read."""
        self.buffer = converted
        self.offset = len(codecs.BOM_UTF16_LE) + 2 * self.read.offset


def convert(source_path: str, target_path: str) -> int:
    """Convert a file; return how many characters it had."""
    characters = 0
    with (
        portio.open(source_path) as source_file,
        portio.open(target_path, "w") as target_file,
        portio.Port(thread_bound=True) as port,
    ):
        source = port.associate(source_file)
        target = port.associate(target_file)
        reads = [ReadRecord(source, target, number) for number in range(RECORDS)]
        port.submit(portio.Write(target, codecs.BOM_UTF16_LE), *reads)
        pending = 1 + len(reads)
        while pending:
            for done in port.get_many():
                nbytes = done.nbytes
                match done.operation:
                    case ReadRecord() as read if done.result():
                        read.write.take(read.converted())
                        port.submit(read.write)
                        characters += nbytes
                    case WriteRecord(read=read) if done.result():
                        read.move_on()
                        port.submit(read)
                    case _:  # the end of the file, or the byte-order mark
                        done.result()
                        pending -= 1
    return characters


def main() -> int:
    if len(sys.argv) != 3:
        print(f"usage: {sys.argv[0]} SOURCE TARGET", file=sys.stderr)
        return 2
    try:
        characters = convert(sys.argv[1], sys.argv[2])
    except (OSError, NotAsciiError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    print(f"{characters} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
