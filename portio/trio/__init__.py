from portio.trio.ports import TrioPort, current_port, run
from portio.trio.sockets import SocketListener, SocketStream
from portio.trio.pipes import PipeReceiveStream, PipeSendStream, open_pipe
from portio.trio.tcp import open_tcp_listeners, open_tcp_stream, serve_tcp
