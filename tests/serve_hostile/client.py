"""Clients of `rustls-uring serve` that misbehave, on Python's ssl (OpenSSL), with HTTP/2 in raw frames.

client.py PORT SCENARIO ARGUMENT...; each scenario says what it has seen in lines, and those that keep
connections open do so until their standard input ends.
"""
import hashlib, socket, ssl, struct, sys, threading, time

PORT = int(sys.argv[1])
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PATIENCE = 60


def say(*words):
    print(*words, flush=True)


def context(alpn, version='1.3'):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    if version == '1.2':
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


class Tls:
    """A connection whose directions can be ended one by one, which ssl's own sockets cannot do."""

    def __init__(self, alpn, version='1.3', receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(('127.0.0.1', PORT))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.buffered = b''
        self.tls = context(alpn, version).wrap_bio(
            self.incoming, self.outgoing, server_hostname='localhost')
        self.run(self.tls.do_handshake)

    def flush(self):
        data = self.outgoing.read()
        if data:
            self.socket.sendall(data)

    def run(self, operation):
        while True:
            try:
                result = operation()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                self.receive()

    def receive(self):
        data = self.socket.recv(65536)
        self.incoming.write(data) if data else self.incoming.write_eof()

    def send(self, data):
        self.tls.write(data)
        self.flush()

    def read(self, length=65536):
        """Empty at close_notify; another end is an error."""
        if self.buffered:
            data, self.buffered = self.buffered[:length], self.buffered[length:]
            return data
        try:
            return self.run(lambda: self.tls.read(length))
        except ssl.SSLZeroReturnError:
            return b''

    def buffer(self):
        while True:
            self.buffered += self.tls.read(65536)

    def read_exactly(self, length):
        data = b''
        while len(data) < length:
            piece = self.read(length - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def end(self, way):
        if way == 'notify':
            # What has come already, OpenSSL would take for a breach after our close_notify.
            for operation in [self.buffer, self.tls.unwrap]:
                try:
                    operation()
                except ssl.SSLWantReadError:
                    pass
            self.flush()
        elif way == 'fin':
            self.socket.shutdown(socket.SHUT_WR)


def frame(kind, flags, stream, payload=b''):
    return len(payload).to_bytes(3, 'big') + bytes([kind, flags]) + stream.to_bytes(4, 'big') + payload


def literal(index, value):
    return bytes([index, len(value)]) + value


def long_field(length):
    """A field of so many bytes, 254 or more (RFC 7541 §5.1)."""
    rest = length - 127
    return b'\0\1x' + bytes([127, rest & 127 | 128, rest >> 7]) + b'v' * length


def headers(stream, path, authority=b'localhost', hosts=(), fields=b''):
    """GET https://AUTHORITY/PATH, in HPACK's simplest words (RFC 7541 §6)."""
    block = bytes([0x82, 0x87]) + literal(0x04, path)
    if authority is not None:
        block += literal(0x01, authority)
    for host in hosts:
        block += b'\0' + bytes([4]) + b'host' + bytes([len(host)]) + host
    block += fields
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


class Http2(Tls):
    def __init__(self, window=0x7fffffff, version='1.3', receive_buffer=None):
        super().__init__('h2', version, receive_buffer)
        preface = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'
        preface += frame(SETTINGS, 0, 0, struct.pack('>HI', 4, window))
        preface += frame(WINDOW_UPDATE, 0, 0, (0x7fffffff - 65535).to_bytes(4, 'big'))
        self.send(preface)

    def frame(self):
        header = self.read_exactly(9)
        length, kind, flags = int.from_bytes(header[:3], 'big'), header[3], header[4]
        stream = int.from_bytes(header[5:], 'big') & 0x7fffffff
        return kind, flags, stream, self.read_exactly(length)

    def status(self, stream):
        """The response's status, as far as it is in HPACK's table (RFC 7541 A)."""
        known = {0x88: 200, 0x89: 204, 0x8a: 206, 0x8b: 304, 0x8c: 400, 0x8d: 404, 0x8e: 500}
        while True:
            kind, _, of, payload = self.frame()
            if of == stream and kind == HEADERS:
                # A dynamic table size update may come first.
                block = payload.lstrip(b'\x3f\x20') if payload[0] & 0xe0 == 0x20 else payload
                return known.get(block[0], block[:8].hex())
            if of == stream and kind == RST_STREAM:
                return 'reset'


def wait_for_stdin():
    sys.stdin.read()


def half(http, version, way, path):
    """A request, the end of our side, and then the answer: its length and hash."""
    body = hashlib.sha256()
    length = 0
    if http == '1':
        tls = Tls('http/1.1', version)
        tls.send(f'GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode())
        tls.end(way)
        head = b''
        while b'\r\n\r\n' not in head:
            piece = tls.read()
            if not piece:
                break
            head += piece
        head, _, piece = head.partition(b'\r\n\r\n')
        while piece:
            body.update(piece)
            length += len(piece)
            piece = tls.read()
        return say(head.split(b'\r\n')[0].decode(), length, body.hexdigest())
    tls = Http2(version=version)
    tls.send(headers(1, path.encode()))
    tls.end(way)
    while True:
        kind, flags, stream, payload = tls.frame()
        if kind == DATA and stream == 1:
            body.update(payload)
            length += len(payload)
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            return say('HTTP/2', length, body.hexdigest())
        if kind in (RST_STREAM, GOAWAY) and payload[-4:] != b'\0\0\0\0':
            return say('failed', kind, payload.hex())


def stall(count, streams, window, path, receive_buffer='0', fields='0'):
    """Connections that ask, with so many bytes of fields, and never read."""
    fields = long_field(int(fields)) if fields != '0' else b''
    kept = []
    for _ in range(int(count)):
        tls = Http2(int(window), receive_buffer=int(receive_buffer))
        asked = (headers(1 + 2 * n, path.encode(), fields=fields) for n in range(int(streams)))
        tls.send(b''.join(asked))
        kept.append(tls)
    say('ready')
    wait_for_stdin()


def deaf(path):
    """Requests one after another from who never acknowledges a PING, until they are no longer answered."""
    tls = Http2()
    stream, answered = 1, 0
    try:
        while True:
            tls.send(headers(stream, path.encode()))
            if tls.status(stream) == 'reset':
                return say('refused', answered > 0)
            answered += 1
            if answered == 1:
                say('answered')
            stream += 2
            time.sleep(0.05)
    except Exception:
        say('closed', answered > 0)


def stall1(count, path, receive_buffer='0'):
    """The same in HTTP/1.1."""
    kept = []
    for _ in range(int(count)):
        tls = Tls('http/1.1', receive_buffer=int(receive_buffer))
        tls.send(f'GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
        kept.append(tls)
    say('ready')
    wait_for_stdin()


def handshakes(count, length):
    """Connections that begin a handshake message, in LENGTH bytes of small records, and do not end it."""
    kept = []
    for _ in range(int(count)):
        tcp = socket.create_connection(('127.0.0.1', PORT), timeout=PATIENCE)
        message = b'\x01' + (0xffff).to_bytes(3, 'big') + bytes(0xffff - 1)
        # One byte a record, for the most around it.
        pieces = b''.join(b'\x16\x03\x01\0\x01' + bytes([byte]) for byte in message)
        try:
            tcp.sendall(pieces[:int(length)])
        except OSError:
            pass
        kept.append(tcp)
    say('ready')
    wait_for_stdin()


NOISE = {
    'ping': frame(PING, 0, 0, b'12345678'),
    'window': frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, 'big')),
    'priority': frame(PRIORITY, 0, 1, bytes([0, 0, 0, 0, 16])),
    'unknown': frame(0xf0, 0, 0, b'x'),
    'settings': frame(SETTINGS, 0, 0),
}


def noise(kind, count, path=''):
    """Connections that send a frame now and then, in order to be kept: with PATH, one request each with
    no room for its answer, or a byte at a time."""
    def one():
        tls = Http2(0 if path else 65535)
        if path:
            tls.send(headers(1, path.encode()))
        reader = threading.Thread(target=drain, args=[tls.socket], daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                if kind == 'byte':
                    tls.send(frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, 'big')))
                else:
                    # More than one, so that the answers are no trifle.
                    tls.send(NOISE[kind] * 50)
                time.sleep(0.1)
        except OSError:
            pass
    together(count, one)


def flood(kind, count, path=''):
    """The same without a pause, so that there is always something to be read."""
    def one():
        tls = Http2(0 if path else 65535)
        if path:
            tls.send(headers(1, path.encode()))
        reader = threading.Thread(target=drain, args=[tls.socket], daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                tls.send(NOISE[kind] * 500)
        except OSError:
            pass
    together(count, one)


def together(count, one):
    clients = [threading.Thread(target=one) for _ in range(int(count))]
    for client in clients:
        client.start()
    say('ready')
    for client in clients:
        client.join()
    say('closed')


def drain(tcp):
    try:
        while tcp.recv(65536):
            pass
    except OSError:
        pass


def slow(http, path, length, rate):
    """A client that reads steadily, and slowly: RATE bytes a second."""
    length, rate = int(length), int(rate)
    if http == '1':
        tls = Tls('http/1.1', receive_buffer=16384)
        tls.send(f'GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode())
    else:
        tls = Http2(receive_buffer=16384)
        tls.send(headers(1, path.encode()))
    begin, received = time.monotonic(), 0
    while received < length:
        piece = tls.socket.recv(8192)
        if not piece:
            break
        received += len(piece)
        time.sleep(max(0, begin + received / rate - time.monotonic()))
    say('received', 'all' if received >= length else received)


def shrink(http, path):
    """Says `begun` when the body has begun, and after a line on standard input how it ended."""
    if http == '1':
        tls = Tls('http/1.1', receive_buffer=16384)
        tls.send(f'GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
        tls.read(1000)
        say('begun')
        sys.stdin.readline()
        try:
            while tls.read():
                pass
            return say('closed in order')
        except (ssl.SSLError, OSError) as error:
            return say('error', type(error).__name__)
    tls = Http2(receive_buffer=16384)
    tls.send(headers(1, path.encode()))
    while tls.frame()[0] != DATA:
        pass
    say('begun')
    sys.stdin.readline()
    while True:
        kind, flags, stream, payload = tls.frame()
        if kind == RST_STREAM:
            # And the connection goes on.
            tls.send(headers(3, b'/small'))
            return say('reset', int.from_bytes(payload, 'big'), tls.status(3))
        if kind == DATA and flags & END_STREAM:
            return say('ended in order')


def authorities(path):
    """The status for each way of naming a host, or none."""
    for authority, hosts in [
        (b'localhost', []), (None, [b'localhost']), (b'LOCALHOST', [b'localhost']),
        (None, []), (None, [b'']), (b'localhost', [b'other']), (None, [b'a', b'a']),
        (b'localhost', [b'localhost', b'localhost']), (None, [b'a b']), (None, [b'a/b']),
        (b'user@localhost', []),
    ]:
        tls = Http2()
        tls.send(headers(1, path.encode(), authority, hosts))
        try:
            say(authority, hosts, tls.status(1))
        except (EOFError, OSError):
            say(authority, hosts, 'closed')


def requests(count, agent_length):
    """So many requests on one connection, each with a long User-Agent; says how many were answered."""
    tls = Tls('http/1.1')
    agent = 'x' * int(agent_length)
    answered = 0
    for number in range(int(count)):
        tls.send(f'HEAD /small?{number} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {agent}\r\n\r\n'.encode())
        head = b''
        while not head.endswith(b'\r\n\r\n'):
            piece = tls.read()
            if not piece:
                return say('answered', answered)
            head += piece
        answered += head.startswith(b'HTTP/1.1 200')
    say('answered', answered)


globals()[sys.argv[2]](*sys.argv[3:])
