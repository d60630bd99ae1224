"""The steps of a text file: characters that were decoded, and where they stand in the file.

A chunk of bytes is decoded at a time; `_chars` are its characters, of which `_used` are
gone, and `_snapshot` is where the chunk begins: a position in the file, the decoder's flags
there, and its bytes.

A position (`tell`) is a number that only `seek` understands, except that it is the
position of the byte as a rule: where decoding can begin anew, it is that byte's
position, with the decoder's flags above it; elsewhere also the number of characters
that have to be passed over.

Bytes that cannot be decoded are passed over, with all that the failing call had read from
the file; characters that earlier calls had decoded stay.  So who catches the error goes on
behind the chunk, as with Python's files, and does not meet the same bytes for ever.

Every step here belongs to the task that has the turn, and is called by a public method that
is protected from KeyboardInterrupt.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trio.lowlevel import checkpoint

from portio.trio.turns import Turns

if TYPE_CHECKING:
    from portio.trio.binary import BinaryFile

__all__ = ["NEWLINES", "TextSteps"]

CHUNK = 8 * 1024  # bytes that are decoded at a time
NEWLINES = (None, "", "\n", "\r", "\r\n")

# The parts of a position.
_POSITION = 64  # bits
_FLAGS = 64


class _Decoder(Protocol):
    """An incremental decoder, io.IncrementalNewlineDecoder included."""

    def decode(self, data: bytes, /, final: bool = False) -> str:  # noqa: FBT001, FBT002
        ...

    def getstate(self) -> tuple[bytes, int]: ...

    def setstate(self, state: tuple[bytes, int], /) -> None: ...

    def reset(self) -> None: ...


class _Mark(NamedTuple):
    """Where a read began."""

    position: int
    decoder: tuple[bytes, int] | None
    chars: str
    used: int
    snapshot: tuple[int, int, bytes] | None


class TextSteps:
    """What `TextFile` consists of, below its public methods."""

    def __init__(
        self,
        buffer: BinaryFile,
        *,
        mode: str,
        encoding: str | None,
        errors: str | None,
        newline: str | None,
        line_buffering: bool,
    ) -> None:
        self._buffer = buffer
        self._mode = mode
        if encoding is None or encoding == "locale":
            encoding = locale.getencoding() if encoding == "locale" else io.text_encoding(None)
            if encoding == "locale":
                encoding = locale.getencoding()
        info = codecs.lookup(encoding)
        if not getattr(info, "_is_text_encoding", True):
            raise LookupError(f"{encoding!r} is not a text encoding")
        self._encoding = encoding
        self._errors = "strict" if errors is None else errors
        codecs.lookup_error(self._errors)
        self._line_buffering = line_buffering
        self._newline = newline
        self._turns = Turns()
        self._encoder = info.incrementalencoder(self._errors) if buffer._writable else None
        self._decoder = self._make_decoder(info) if buffer._readable else None
        self._chars = ""
        self._used = 0
        self._snapshot: tuple[int, int, bytes] | None = None
        if buffer._has_offsets:
            self._not_at_the_beginning()

    def _make_decoder(self, info: codecs.CodecInfo) -> _Decoder:
        decoder = info.incrementaldecoder(self._errors)
        if self._newline in (None, ""):
            return io.IncrementalNewlineDecoder(decoder, translate=self._newline is None)
        return decoder

    # ---- steps, in turn ----

    async def _read_chunk(self) -> bool:
        """Decodes the next chunk, when the one before is used up; False at the end."""
        assert self._decoder is not None
        buffer = self._buffer
        position = buffer._position
        kept, flags = self._decoder.getstate()
        data = await buffer.read1(CHUNK)
        chars = self._decoder.decode(data, final=not data)
        self._snapshot = (position - len(kept), flags, kept + data)
        self._chars = chars
        self._used = 0
        return bool(data)

    async def _read(self, size: int) -> str:
        mark = self._mark()
        pieces: list[str] = []
        left = size
        more = True
        waited = False
        try:
            while True:
                piece = self._chars[self._used : self._used + left]
                self._used += len(piece)
                pieces.append(piece)
                left -= len(piece)
                if left == 0 or not more:
                    break
                waited = True
                more = await self._read_chunk()
            if not waited:
                await checkpoint()
        except BaseException as error:
            self._undo(mark, pieces, error)
            raise
        return "".join(pieces)

    async def _read_all(self) -> str:
        assert self._decoder is not None
        mark = self._mark()
        rest = self._chars[self._used :]
        data = await self._buffer.readall()
        try:
            text = rest + self._decoder.decode(data, final=True)
        except UnicodeError:
            self._pass_over(mark)
            raise
        self._chars, self._used, self._snapshot = "", 0, None
        self._not_at_the_beginning()
        return text

    async def _read_line(self, size: int) -> str:
        mark = self._mark()
        most = size if size >= 0 else 1 << 62
        before = ""  # of the line, from earlier chunks
        more = True
        waited = False
        try:
            while True:
                text = before + self._chars[self._used :]
                end = min(self._line_end(text, len(before)), most)
                if end <= len(text) or not more:
                    break
                self._used = len(self._chars)
                before = text
                waited = True
                more = await self._read_chunk()
            if not waited:
                await checkpoint()
        except BaseException as error:
            self._undo(mark, [before], error)
            raise
        line = text[:end]
        self._used += len(line) - len(before)
        return line

    async def _read_lines(self, hint: int) -> list[str]:
        mark = self._mark()
        lines: list[str] = []
        size = 0
        try:
            while line := await self._read_line(-1):
                lines.append(line)
                size += len(line)
                if 0 < hint < size:
                    break
        except BaseException as error:
            self._undo(mark, lines, error)
            raise
        return lines

    def _line_end(self, text: str, known: int) -> int:
        """Where the line ends in `text`; beyond it if it does not.

        There is no end in the first `known` characters.
        """
        newline = self._newline
        if newline is None:
            newline = "\n"
        elif newline == "":
            ends = [text.find(end, max(known - 1, 0)) for end in ("\n", "\r")]
            found = [end for end in ends if end >= 0]
            if not found:
                return len(text) + 1
            end = min(found)
            return end + 2 if text.startswith("\r\n", end) else end + 1
        end = text.find(newline, max(known - len(newline) + 1, 0))
        return end + len(newline) if end >= 0 else len(text) + 1

    async def _write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        assert self._encoder is not None
        if self._snapshot is not None:
            self._buffer._check_seekable()
            await self._seek(self._tell())
        ends_line = self._line_buffering and ("\n" in text or "\r" in text)
        translated = text
        if self._newline != "" and "\n" in text:
            newline = self._newline or os.linesep
            if newline != "\n":
                translated = text.replace("\n", newline)
        state = self._encoder.getstate()
        accepted = self._buffer._accepted
        try:
            await self._buffer.write(self._encoder.encode(translated))
        except BaseException:
            if self._buffer._accepted == accepted:  # else the file has its beginning
                self._encoder.setstate(state)
            raise
        if ends_line:
            await self._buffer.flush()
        return len(text)

    # ---- positions ----

    def _mark(self) -> _Mark:
        state = self._decoder.getstate() if self._decoder is not None else None
        position = self._buffer._position
        return _Mark(position, state, self._chars, self._used, self._snapshot)

    def _undo(self, mark: _Mark, read: list[str], error: BaseException) -> None:
        """A read has failed that had `read` something."""
        if isinstance(error, UnicodeError):
            self._pass_over(mark)
        else:
            self._return_to(mark, read)

    def _return_to(self, mark: _Mark, read: list[str]) -> None:
        """It has read nothing."""
        if not self._buffer._has_offsets:  # it cannot be read again
            self._chars = "".join(read) + self._chars[self._used :]
            self._used = 0
            return
        self._buffer._position = mark.position
        if self._decoder is not None and mark.decoder is not None:
            self._decoder.setstate(mark.decoder)
        self._chars, self._used, self._snapshot = mark.chars, mark.used, mark.snapshot

    def _pass_over(self, mark: _Mark) -> None:
        """What a call has read cannot be decoded: the next one goes on behind it."""
        assert self._decoder is not None
        _, flags = self._decoder.getstate()
        self._decoder.setstate((b"", flags))
        if mark.used < len(mark.chars):
            self._chars, self._used, self._snapshot = mark.chars, mark.used, mark.snapshot
        else:
            self._chars, self._used, self._snapshot = "", 0, (self._buffer._position, flags, b"")

    def _tell(self) -> int:
        start, flags, skip, _ = self._place()
        return start | flags << _POSITION | skip << _POSITION + _FLAGS

    def _place(self) -> tuple[int, int, int, tuple[int, int]]:
        """Where we are: a byte's position, the decoder's flags, and characters to pass over.

        And the byte that comes next, with the decoder's flags, as near as can be told.
        """
        decoder, snapshot, used = self._decoder, self._snapshot, self._used
        if decoder is None or snapshot is None:
            position = self._buffer._position
            return position, 0, 0, (position, 0)
        start, flags, data = snapshot
        if used == 0:
            return start, flags, 0, (start, flags)
        state = decoder.getstate()
        try:
            # The fewest bytes that give as many characters.
            low, high = 1, len(data)
            while low < high:
                middle = (low + high) // 2
                decoder.setstate((b"", flags))
                if len(decoder.decode(data[:middle])) < used:
                    low = middle + 1
                else:
                    high = middle
            decoder.setstate((b"", flags))
            characters = len(decoder.decode(data[:low]))
            kept, new_flags = decoder.getstate()
        finally:
            decoder.setstate(state)
        next_byte = start + low, new_flags
        if characters == used and not kept:
            return *next_byte, 0, next_byte
        return start, flags, used, next_byte

    async def _forget_decoded(self) -> None:
        """Goes to the byte that comes next, without what was decoded of the rest."""
        *_, (position, flags) = self._place()
        await self._buffer.seek(position)
        self._chars, self._used, self._snapshot = "", 0, None
        if self._decoder is not None:
            self._decoder.setstate((b"", flags))
        self._not_at_the_beginning()

    def _not_at_the_beginning(self) -> None:
        """No byte order mark in the middle."""
        if self._encoder is not None and self._buffer._position:
            self._encoder.setstate(0)

    async def _seek(self, cookie: int) -> None:
        position = cookie & (1 << _POSITION) - 1
        flags = cookie >> _POSITION & (1 << _FLAGS) - 1
        skip = cookie >> _POSITION + _FLAGS
        await self._buffer.seek(position)
        self._chars, self._used, self._snapshot = "", 0, None
        if self._encoder is not None:
            if cookie:
                self._encoder.setstate(0)
            else:
                self._encoder.reset()
        if self._decoder is None:
            return
        if cookie:
            self._decoder.setstate((b"", flags))
        else:
            self._decoder.reset()
        while skip:
            more = await self._read_chunk()
            self._used = min(skip, len(self._chars))
            skip -= self._used
            if skip and not more:
                raise OSError("can't restore logical file position")
