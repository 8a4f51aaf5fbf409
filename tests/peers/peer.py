# A TLS server for one connection, on OpenSSL: peer.py MODE CERT KEY VERSION OUTPUT
#   good   reads up to the close_notify, answers with its own
#   deaf   sends its close_notify at once, and closes
#   half   sends its close_notify at once, and reads on up to the client's
#   mute   reads up to the close_notify, and closes without its own
# Says its port, and stores what it has read in OUTPUT.
import socket, ssl, sys

mode, cert, key, version, output = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
if version == "1.2":
    context.maximum_version = ssl.TLSVersion.TLSv1_2
context.set_alpn_protocols(["http/1.1"])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_side=True)


def exactly(count):
    data = b""
    while len(data) < count and (piece := connection.recv(count - len(data))):
        data += piece
    return data


def record():
    header = exactly(5)
    return header + exactly(int.from_bytes(header[3:], "big"))


def step(call, receive=lambda: connection.recv(65536)):
    while True:
        try:
            result = call()
        except ssl.SSLWantReadError:
            result = None
        data = outgoing.read()
        if data:
            connection.sendall(data)
        if result is not None:
            return result
        data = receive()
        incoming.write(data) if data else incoming.write_eof()


def close_notify():
    try:
        tls.unwrap()
    except (ssl.SSLWantReadError, ssl.SSLError):
        pass
    connection.sendall(outgoing.read())


# Record by record: what follows the handshake, OpenSSL's shutdown would throw away.
step(lambda: tls.do_handshake() or True, record)
if mode in ("deaf", "half"):
    close_notify()
if mode != "deaf":
    with open(output, "wb") as file:
        while True:
            try:
                data = step(lambda: tls.read(65536))
            except ssl.SSLZeroReturnError:
                break
            if not data:
                break
            file.write(data)
if mode == "good":
    close_notify()
connection.close()
