"""P10 fork: the child can do no harm, and the parent notices nothing."""

from __future__ import annotations

import pytest

from support.children import run_script
from support.marks import needs_fork

pytestmark = needs_fork

PREAMBLE = """
    import gc, os, socket, sys, threading, warnings
    import portio
    warnings.simplefilter("ignore", DeprecationWarning)     # fork in a process with threads
    backend, bound = sys.argv[1], sys.argv[2] == "thread_bound"
    port = portio.Port(backend=backend, thread_bound=bound)
    ours, peer = socket.socketpair()
    peer.settimeout(30)
    key = port.associate(ours)
    buffer = bytearray(64)
    receive = portio.Recv(key, buffer)
    unqueued = portio.Timer(1000)
    port.submit(receive)
    port.submit(unqueued, queued=False)
    port.post(None, 1, "from before")

    def ended_well(child):
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code == 0, f"the child ended with {code}"

    def parent_works_on():
        packet = port.get(30)
        assert packet.payload == "from before"
        peer.sendall(b"for the parent")
        done = port.get(30)
        assert done.operation is receive and done.result() == 14, done
        assert buffer[:14] == b"for the parent"
        send = portio.Send(key, b"and back")
        port.submit(send)
        assert port.get(30).result() == 8
        assert peer.recv(8) == b"and back"
        unqueued.cancel()
        assert unqueued.wait(30).error is not None
        assert port.get(0) is None
        port.close()
        print("parent works on")
"""

EVERY_USE = """
    child = os.fork()
    if child == 0:
        try:
            def block():
                with port.blocking():
                    pass
            def enter():
                with port:
                    pass
            uses = [
                port.get, lambda: port.get(0), lambda: port.get_many(1, 0),
                lambda: next(iter(port)), port.post, lambda: port.post(key),
                lambda: port.submit(portio.Timer(0)),
                lambda: port.submit(portio.Send(key, b"stolen")),
                lambda: port.associate(peer), lambda: port.disassociate(key),
                port.flush, port.fileno, block, enter, port.close,
                receive.cancel, lambda: unqueued.wait(0), key.close,
            ]
            for number, use in enumerate(uses):
                try:
                    use()
                except RuntimeError as error:
                    assert "fork" in str(error), (number, error)
                else:
                    raise AssertionError(f"use {number} went through")
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    ended_well(child)
    parent_works_on()
"""

NORMAL_EXIT = """
    child = os.fork()
    if child == 0:
        # It drops everything, collects it, and goes through the interpreter's own end.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            receive = unqueued = key = port = None
            gc.collect()
        sys.exit(0)
    ended_well(child)
    parent_works_on()
"""

OWN_PORT = """
    child = os.fork()
    if child == 0:
        try:
            a, b = socket.socketpair()
            with portio.Port(backend=backend, thread_bound=bound) as mine:
                done = portio.Recv(mine.associate(a), bytearray(8))
                mine.submit(done)
                b.sendall(b"child")
                assert mine.get(30).result() == 5
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    ended_well(child)
    parent_works_on()
"""

WAITING = """
    assert port.get(30).payload == "from before"
    took = []
    threads = [threading.Thread(target=lambda: took.append(port.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    from support.watch import wait_until_blocked
    wait_until_blocked(*threads)
    child = os.fork()
    if child == 0:
        receive = unqueued = key = None
        try:
            port.get(0)
        except RuntimeError:
            sys.exit(0)
        sys.exit(1)
    ended_well(child)
    peer.sendall(b"one")
    port.post()
    port.post()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(packet.nbytes for packet in took) == [0, 0, 3], took
    port.close()
    print("parent works on")
"""

PARENT_FIRST = """
    # The parent closes while the child still has everything it inherited.
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(w)
        os.read(r, 1)
        os._exit(0)
    os.close(r)
    port.close()
    assert not receive.pending
    buffer.append(0)
    peer.sendall(b"x")
    assert ours.recv(1) == b"x"
    os.close(w)
    ended_well(child)
    print("parent works on")
"""


@pytest.mark.parametrize("kind", ["shared", "thread_bound"])
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(EVERY_USE, id="every use raises"),
        pytest.param(NORMAL_EXIT, id="a normal exit frees nothing"),
        pytest.param(OWN_PORT, id="a port of its own works"),
        pytest.param(PARENT_FIRST, id="the parent closes first"),
    ],
)
def test_p10_fork(backend: str, script: str, kind: str) -> None:
    assert run_script(PREAMBLE + script, backend, kind) == "parent works on\n"


@pytest.mark.core
def test_p10_fork_while_threads_wait(backend: str) -> None:
    assert run_script(PREAMBLE + WAITING, backend, "shared") == "parent works on\n"
