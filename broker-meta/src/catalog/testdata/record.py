#!/usr/bin/env python3
"""Asks a real RabbitMQ what it answers to the lines of refusals.txt and prints the lines with its answers.

    record.py PORT < refusals.txt > refusals.new

The broker must be fresh: a line relies on what the lines before it declared.
"""
import socket
import struct
import sys


def short(text):
    octets = text.encode()
    return bytes([len(octets)]) + octets


def long_string(octets):
    return struct.pack(">I", len(octets)) + octets


PACK = {"b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q", "L": ">q", "f": ">f", "d": ">d", "T": ">Q"}


def value(kind, text):
    if kind in PACK:
        number = float(text) if kind in "fd" else int(text)
        return kind.encode() + struct.pack(PACK[kind], number)
    if kind == "t":
        return b"t" + bytes([text == "true"])
    if kind == "D":
        scale, number = text.split("/")
        return b"D" + struct.pack(">BI", int(scale), int(number))
    if kind in "Sx":
        return kind.encode() + long_string(text.encode())
    if kind == "V":
        return b"V"
    if kind == "A":
        return b"A" + long_string(value("S", text))
    if kind == "F":
        return b"F" + long_string(short("k") + value("S", text))
    raise ValueError(kind)


def table(spec):
    out = b""
    for field in spec:
        name, kind, text = field.split(":", 2)
        out += short(name) + value(kind, text)
    return long_string(out)


class Connection:
    def __init__(self, port):
        self.port, self.socket = port, None

    def open(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self.frame()
        self.method(0, 10, 11, long_string(b"") + short("PLAIN") + long_string(b"\0guest\0guest") + short("en_US"))
        self.frame()
        self.method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0))
        self.method(0, 10, 40, short("/") + short("") + b"\0")
        self.frame()
        self.open_channel()

    def open_channel(self):
        self.method(1, 20, 10, short(""))
        self.frame()

    def method(self, channel, class_id, method_id, arguments):
        payload = struct.pack(">HH", class_id, method_id) + arguments
        self.socket.sendall(struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce")

    def read(self, count):
        out = b""
        while len(out) < count:
            more = self.socket.recv(count - len(out))
            if not more:
                raise EOFError
            out += more
        return out

    def frame(self):
        _, channel, size = struct.unpack(">BHI", self.read(7))
        return channel, self.read(size + 1)[:-1]

    def call(self, class_id, method_id, arguments):
        if self.socket is None:
            self.open()
        self.method(1, class_id, method_id, arguments)
        _, payload = self.frame()
        answer = struct.unpack(">HH", payload[:4])
        if answer not in ((10, 50), (20, 40)):
            return "ok"
        code, length = struct.unpack(">HB", payload[4:7])
        text = payload[7 : 7 + length].decode()
        if answer == (20, 40):
            self.method(1, 20, 41, b"")
            self.open_channel()
            return f"{code} channel {text}"
        self.method(0, 10, 51, b"")
        self.socket.close()
        self.socket = None
        return f"{code} connection {text}"


def flags(words, names):
    found = [word for word in words if word in names]
    rest = [word for word in words if word not in names]
    return sum(1 << names.index(word) for word in found), rest


def run(connection, line):
    words = line.split(" ")
    verb, rest = words[0], [word.replace("''", "").replace("\\n", "\n").replace("\\r", "\r") for word in words[1:]]
    ticket = b"\0\0"
    if verb == "queue":
        bits, spec = flags(rest[1:], ["passive", "durable", "exclusive", "auto_delete"])
        return connection.call(50, 10, ticket + short(rest[0]) + bytes([bits]) + table(spec))
    if verb == "queue-delete":
        bits, _ = flags(rest[1:], ["if_unused", "if_empty"])
        return connection.call(50, 40, ticket + short(rest[0]) + bytes([bits]))
    if verb == "exchange":
        bits, spec = flags(rest[2:], ["passive", "durable", "auto_delete", "internal"])
        return connection.call(40, 10, ticket + short(rest[0]) + short(rest[1]) + bytes([bits]) + table(spec))
    if verb == "exchange-delete":
        bits, _ = flags(rest[1:], ["if_unused"])
        return connection.call(40, 20, ticket + short(rest[0]) + bytes([bits]))
    if verb in ("bind", "unbind"):
        source, kind, destination, key = rest[:4]
        nowait = b"" if verb == "unbind" and kind == "queue" else b"\0"
        names = {"queue": short(destination) + short(source), "exchange": short(destination) + short(source)}[kind]
        ids = {("bind", "queue"): (50, 20), ("unbind", "queue"): (50, 50), ("bind", "exchange"): (40, 30), ("unbind", "exchange"): (40, 40)}
        return connection.call(*ids[verb, kind], ticket + names + short(key) + nowait + table(rest[4:]))
    raise ValueError(line)


def main():
    port = int(sys.argv[1])
    connections = [Connection(port), Connection(port)]
    for line in sys.stdin:
        line = line.rstrip("\n")
        if not line or line.startswith("#"):
            print(line)
            continue
        asked = line.split(" => ")[0]
        other = asked.startswith("other: ")
        print(f"{asked} => {run(connections[other], asked.removeprefix('other: '))}", flush=True)


main()
