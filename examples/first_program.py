"""A first program: an echo server for any number of connections, in one thread."""

# mypy: disable-error-code="exhaustive-match"

import socket

import portio

with portio.Port() as port:
    server = socket.create_server(("127.0.0.1", 0))
    port.submit(portio.Accept(port.associate(server)))
    print("listening on {}:{}".format(*server.getsockname()), flush=True)
    for done in port:
        match done.operation:
            case portio.Accept() as accept:
                client = port.associate(done.result())
                port.submit(portio.Recv(client, bytearray(4096)), accept)
            case portio.Recv(key=client, buffer=bytearray() as buffer) if done.nbytes:
                port.submit(portio.Send(client, buffer[: done.nbytes]))
            case portio.Send(key=client) if not done.error:
                port.submit(portio.Recv(client, bytearray(4096)))
            case portio.Recv(key=client) | portio.Send(key=client):
                client.close()
