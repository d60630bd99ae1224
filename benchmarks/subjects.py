"""Who is measured: a line for each subject of each work, and what each needs."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Mapping

from benchmarks.model import Subject
from benchmarks.programs import Program

# The names that goals and ratios refer to.
C_IO_URING = "C io_uring"
C_EPOLL = "C epoll"
UVLOOP_PROTOCOL = "uvloop, Protocol"
UVLOOP_SOCK = "uvloop, sock_recv and sock_sendall"
ASYNCIO_SOCK = "asyncio, sock_recv_into"
SIMPLE_QUEUE = "queue.SimpleQueue"
QUEUE = "queue.Queue"
ASYNCIO_CAIO = "asyncio, caio"
ASYNCIO_CAIO_PLAIN = "asyncio, caio without SQPOLL"
DD = "dd"
CP = "cp"
TRIO = "trio"
TRIO_THREAD = "trio.to_thread"
PORTIO_TRIO = "portio.trio {}"


def portio_name(backend: str, kind: str) -> str:
    """Give the name of the subject that uses this kind of port."""
    return f"portio {backend}, {kind}"


def files_name(backend: str, depth: int) -> str:
    """Give the name of the subject that has so many blocks of a file in flight."""
    return f"portio {backend}, {depth} in flight"


def registered_name(depth: int) -> str:
    """Give the name of the same with blocks that the ring knows."""
    return f"{files_name('io_uring', depth)}, registered"


BACKENDS = ("io_uring", "epoll")
LAZY = {"thread-bound, lazy": ("--lazy",)}
THREAD_BOUND = {"thread-bound": (), **LAZY}
POOLED = {"thread-bound, lazy, pool": ("--lazy",)}
LENT = {"thread-bound, lazy, lent": ("--lazy",)}
WORKERS = {1: "1 worker", 2: "2 workers", 4: "4 workers"}


def _thread_bound(
    module: str,
    *options: str,
    kinds: Mapping[str, tuple[str, ...]] = THREAD_BOUND,
    cases: tuple[str, ...] = (),
    buffer: int = 0,
) -> tuple[Subject, ...]:
    """Give a subject for each backend and each of these kinds of thread-bound port."""
    return tuple(
        Subject(
            portio_name(backend, kind),
            Program(module, ("--backend", backend, *more, *options)),
            needs=(backend,),
            cases=cases,
            buffer=buffer,
        )
        for backend in BACKENDS
        for kind, more in kinds.items()
    )


def _shared(
    module: str, *, workers: tuple[int, ...] = (1, 2, 4), cases: tuple[str, ...] = ()
) -> tuple[Subject, ...]:
    """Give a subject for each backend and each number of threads on a shared port."""
    return tuple(
        Subject(
            portio_name(backend, WORKERS[number]),
            Program(module, ("--backend", backend, "--workers", str(number))),
            needs=(backend,),
            cases=cases,
        )
        for backend in BACKENDS
        for number in workers
    )


def _loops(
    module: str,
    styles: dict[str, str],
    *,
    loops: tuple[str, ...] = ("uvloop", "asyncio"),
    share: dict[str, float] | None = None,
    cases: tuple[str, ...] = (),
) -> tuple[Subject, ...]:
    """Give a subject for asyncio's own loop and for uvloop, in each style of programming."""
    return tuple(
        Subject(
            f"{loop}, {title}",
            Program(module, ("--loop", loop, "--style", style)),
            needs=(loop,),
            share=(share or {}).get(loop, 1.0),
            cases=cases,
        )
        for loop in loops
        for style, title in styles.items()
    )


def _trio(
    module: str,
    title: str = PORTIO_TRIO,
    options: tuple[str, ...] = (),
    share: float = 1.0,
    cases: tuple[str, ...] = (),
) -> tuple[Subject, ...]:
    """Give a subject for each backend under trio."""
    return tuple(
        Subject(
            title.format(backend),
            Program(module, ("--backend", backend, *options)),
            needs=(backend, "trio"),
            share=share,
            cases=cases,
        )
        for backend in BACKENDS
    )


PROTOCOL = {"protocol": "Protocol"}
SOCK = {"sock": "sock_recv and sock_sendall"}

ECHO = (
    Subject(C_IO_URING, Program("echo_io_uring"), needs=("ring",)),
    Subject(C_EPOLL, Program("echo_epoll")),
    *_thread_bound("benchmarks.ours.echo"),
    *_thread_bound("benchmarks.ours.echo_pooled", kinds=POOLED),
    *_thread_bound("benchmarks.ours.echo_lent", kinds=LENT),
    Subject("select.epoll", Program("benchmarks.peers.echo_select")),
    *_loops("benchmarks.peers.echo_asyncio", PROTOCOL, share={"asyncio": 0.4}),
    *_loops(
        "benchmarks.peers.echo_asyncio",
        {**SOCK, "streams": "streams"},
        loops=("uvloop",),
        cases=("50x64B", "500x64B"),
    ),
    *_loops(
        "benchmarks.peers.echo_asyncio",
        {**SOCK, "streams": "streams"},
        loops=("asyncio",),
        share={"asyncio": 0.4},
        cases=("50x64B",),
    ),
    *_trio("benchmarks.ours.echo_trio", share=0.5),
    Subject(TRIO, Program("benchmarks.peers.echo_trio"), needs=("trio",), share=0.5),
)

THREADS = _shared("benchmarks.ours.echo")

# A connection that waits needs little room; who keeps a buffer for each keeps one of this size.
SMALL = 1024
_SMALL = ("--buffer", str(SMALL))

CONNECTIONS = (
    Subject(C_IO_URING, Program("echo_io_uring", (str(SMALL),)), needs=("ring",), buffer=SMALL),
    Subject(C_EPOLL, Program("echo_epoll", (str(SMALL),)), buffer=SMALL),
    *_thread_bound("benchmarks.ours.echo", *_SMALL, kinds=LAZY, buffer=SMALL),
    *_thread_bound("benchmarks.ours.echo_pooled", kinds=POOLED),
    Subject("select.epoll", Program("benchmarks.peers.echo_select")),
    *_loops("benchmarks.peers.echo_asyncio", PROTOCOL),
    *_loops("benchmarks.peers.echo_asyncio", SOCK),
    *_trio("benchmarks.ours.echo_trio"),
    Subject(TRIO, Program("benchmarks.peers.echo_trio"), needs=("trio",)),
)

FILES = (
    *(
        Subject(
            files_name(backend, depth),
            Program("benchmarks.ours.files", ("--backend", backend, "--depth", str(depth))),
            needs=(backend,),
        )
        for backend in BACKENDS
        for depth in (4, 1)
    ),
    *(
        Subject(
            registered_name(depth),
            Program(
                "benchmarks.ours.files",
                ("--backend", "io_uring", "--depth", str(depth), "--registered"),
            ),
            needs=("io_uring",),
        )
        for depth in (4, 1)
    ),
    Subject(DD, Program("benchmarks.peers.files", ("--how", "dd")), needs=("dd",)),
    Subject(
        CP,
        Program("benchmarks.peers.files", ("--how", "cp")),
        needs=("cp",),
        cases=("copy-cached", "copy-cold"),
    ),
    Subject("os.readv, os.write", Program("benchmarks.peers.files", ("--how", "python"))),
    Subject(
        "shutil.copyfile",
        Program("benchmarks.peers.files", ("--how", "shutil")),
        cases=("copy-cached", "copy-cold"),
    ),
)

READS = (
    Subject(C_IO_URING, Program("read_io_uring"), needs=("ring",)),
    Subject("C pread", Program("read_pread")),
    *_thread_bound("benchmarks.ours.reads"),
    *_shared("benchmarks.ours.reads", workers=(1, 4), cases=("random-32",)),
    Subject(
        "os.pread",
        Program("benchmarks.peers.read_blocking", ("--how", "pread")),
        cases=("random-1",),
    ),
    Subject("os.preadv", Program("benchmarks.peers.read_blocking", ("--how", "preadv"))),
    Subject(
        "thread pool, os.preadv",
        Program("benchmarks.peers.read_blocking", ("--how", "threads")),
        share=0.05,
    ),
    *_loops(
        "benchmarks.peers.read_asyncio",
        {"executor": "run_in_executor"},
        share={"uvloop": 0.05, "asyncio": 0.05},
        cases=("random-32",),
    ),
    Subject(
        ASYNCIO_CAIO,
        Program("benchmarks.peers.read_asyncio", ("--loop", "asyncio", "--style", "caio")),
        needs=("caio", "ring"),
        share=0.3,
    ),
    Subject(
        ASYNCIO_CAIO_PLAIN,
        Program("benchmarks.peers.read_asyncio", ("--loop", "asyncio", "--style", "caio-plain")),
        needs=("caio", "ring"),
        share=0.3,
    ),
    *_trio("benchmarks.ours.reads_trio", options=("--how", "operation"), share=0.5),
    *_trio(
        "benchmarks.ours.reads_trio",
        "portio.trio {}, file",
        ("--how", "file"),
        share=0.5,
        cases=("random-32",),
    ),
    Subject(
        TRIO_THREAD,
        Program("benchmarks.peers.read_trio", ("--style", "to_thread")),
        needs=("trio",),
        share=0.05,
    ),
    Subject(
        "trio.open_file",
        Program("benchmarks.peers.read_trio", ("--style", "open_file")),
        needs=("trio",),
        share=0.05,
        cases=("random-32",),
    ),
)

POSTS = (
    *_thread_bound(
        "benchmarks.ours.posts", kinds={"thread-bound": ()}, cases=("1-to-1", "round-trip")
    ),
    *_shared("benchmarks.ours.posts", workers=(1,)),
    Subject(SIMPLE_QUEUE, Program("benchmarks.peers.post_queue", ("--kind", "SimpleQueue"))),
    Subject(QUEUE, Program("benchmarks.peers.post_queue", ("--kind", "Queue"))),
    *_loops(
        "benchmarks.peers.post_asyncio",
        {"threadsafe": "call_soon_threadsafe"},
        share={"uvloop": 0.5, "asyncio": 0.5},
        cases=("1-to-1", "round-trip"),
    ),
)

MEMORY = (
    *_thread_bound("benchmarks.ours.memory", kinds={"thread-bound": ()}),
    *_shared("benchmarks.ours.memory", workers=(1,)),
    *_loops("benchmarks.peers.memory_asyncio", {"sock": "sock_recv_into"}, cases=("receives",)),
    *_loops("benchmarks.peers.memory_asyncio", {"protocol": "Protocol"}, cases=("receives",)),
    *_loops("benchmarks.peers.memory_asyncio", {"sleep": "sleep"}, cases=("timers",)),
)


def missing(subject: Subject) -> str | None:
    """Say why the subject cannot be measured on this system, or None if it can."""
    reasons = (_missing(need) for need in subject.needs)
    return next((reason for reason in reasons if reason), None)


@functools.cache
def _missing(need: str) -> str | None:
    match need:
        case "io_uring" | "epoll":
            return _backend_missing(need)
        case "ring":  # of a peer: what portio says of it, if portio is here to say
            reason = _backend_missing("io_uring")
            return reason if reason and "not installed" not in reason else None
        case "asyncio":
            return None
        case "dd" | "cp":
            return None if shutil.which(need) else f"{need} is not installed"
        case module:
            return None if importlib.util.find_spec(module) else f"{module} is not installed"


def _backend_missing(name: str) -> str | None:
    try:
        from portio import backends
    except ImportError as error:
        return f"portio is not installed: {error}"
    status = backends.available()[name]
    return None if status.available else status.reason
