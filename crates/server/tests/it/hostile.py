"""A hostile server on the socket that is its standard input: files below a folder, or worse."""

import os
import socket
import sys
import threading
import time

folder = sys.argv[1]


def answer(connection):
    reader = connection.makefile("rb")
    while line := reader.readline():
        path = line.split(b" ")[1].decode().split("?")[0].lstrip("/")
        while reader.readline().strip():
            pass
        with open(os.path.join(folder, "manner")) as file:
            manner = file.read().strip()
        if manner == "endless":
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"0" * 65536)
        if manner == "slow":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while True:
                connection.sendall(b"{")
                time.sleep(1)
        file = os.path.join(folder, path)
        if manner == "absent" or not os.path.isfile(file):
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            continue
        with open(file, "rb") as content:
            body = content.read()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def quietly(connection):
    try:
        answer(connection)
    except OSError:
        pass  # The client hung up.


listener = socket.socket(fileno=0)
listener.setblocking(True)
while True:
    client, _ = listener.accept()
    threading.Thread(target=quietly, args=(client,), daemon=True).start()
