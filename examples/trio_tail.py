"""Follows many files at once, and hashes what they grow by.

    python trio_tail.py [--end] FILE...

Prints every line that is in a file or is added to it, with the file's name, until
Ctrl-C; and then the digest (SHA-256) of what was read of each file.  With --end it
stops at the end of each file, and prints the digests alone.

Each file has a task of its own, and each read is an operation of the run's port: there
is no thread for a read, however many files there are.
"""

from __future__ import annotations

import argparse
import hashlib

import trio

from portio.trio import BinaryFile, open_file

PAUSE = 0.05  # seconds between two looks at a file that has not grown
PIECE = 256 * 1024  # bytes
MOST_OPEN = 500  # files at a time, with --end


async def follow(path: str, digests: dict[str, str]) -> None:
    """Prints lines as they come; starts again when the file is cut."""
    digest = hashlib.sha256()
    digests[path] = digest.hexdigest()
    begun = b""  # a line whose end has not been written yet
    file: BinaryFile
    async with await open_file(path, "rb") as file:
        while True:
            if piece := await file.read1(PIECE):
                digest.update(piece)
                digests[path] = digest.hexdigest()
                *lines, begun = (begun + piece).split(b"\n")
                for line in lines:
                    print(f"{path}: {line.decode(errors='replace')}", flush=True)
            else:
                await trio.sleep(PAUSE)
                if file.size() < await file.tell():
                    await file.seek(0)
                    digest, begun = hashlib.sha256(), b""


async def hash_whole(path: str, digests: dict[str, str], limit: trio.CapacityLimiter) -> None:
    """Hashes a file from its beginning to its end."""
    digest = hashlib.sha256()
    async with limit, await open_file(path, "rb") as file:
        while piece := await file.read(PIECE):
            digest.update(piece)
    digests[path] = digest.hexdigest()


async def main(paths: list[str], *, to_the_end: bool) -> None:
    digests: dict[str, str] = {}
    limit = trio.CapacityLimiter(MOST_OPEN)
    try:
        async with trio.open_nursery() as nursery:
            for path in paths:
                if to_the_end:
                    nursery.start_soon(hash_whole, path, digests, limit)
                else:
                    nursery.start_soon(follow, path, digests)
    finally:
        for path in paths:
            if path in digests:
                print(f"{digests[path]} {path}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--end", action="store_true", help="stop at the end of each file")
    options = parser.parse_args()
    try:
        trio.run(lambda: main(options.files, to_the_end=options.end))
    except* KeyboardInterrupt:
        pass
    except* OSError as errors:
        raise SystemExit("\n".join(map(str, errors.exceptions))) from None
